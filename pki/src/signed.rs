//! Signed times and signed requests (Spec: 02 §3.2).
