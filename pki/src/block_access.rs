//! Who may read a protected block (Spec: 06 §6).
