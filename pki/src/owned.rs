//! Which keys belong to whom (Spec: 04 §5).
