//! Signed mutable pointers (Spec: 04 §1, 07).
