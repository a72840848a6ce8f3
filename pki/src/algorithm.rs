//! The record that says how a password becomes keys (Spec: 02 §8.1).
