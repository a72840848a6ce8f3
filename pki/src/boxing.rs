//! Public boxing keys (Spec: 02 §5).
