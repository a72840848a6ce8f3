//! Root blocks of writers (Spec: 04 §4).
