//! Proofs of work (Spec: 02 §9, 10 §5).
