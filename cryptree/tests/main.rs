//! Golden vectors and whole accounts, opened offline.
