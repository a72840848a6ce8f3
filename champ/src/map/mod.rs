//! The CHAMP merkle map (Spec: 03).
