//! Directories: child lists, and what a new directory or page consists of (Spec: 20 §4).

mod child_list;
mod new;

pub use child_list::{ChildList, MAX_PAGE_CHILDREN};
pub use new::{ItemKeys, NewPage, page_bats};
