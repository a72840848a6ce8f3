//! Link nodes: the door from one writing space into another (Spec: 20 §6.2).
//!
//! A person who may write the target cannot rename it, because the name is the link's.

use pki::keys::Writer;
use rand_core::CryptoRng;

use crate::{
    capability::{AbsoluteCapability, Child, ChildEntry, RelativeCapability, RelativeError},
    directory::ChildList,
    node::NodeError,
    properties::FileProperties,
};

/// Most link nodes that are followed to one target; more is a cycle or an attack.
pub const MAX_LINK_HOPS: usize = 8;

/// Returns the properties of a link node to an item with these properties.
#[must_use]
pub fn link_properties(target: &FileProperties) -> FileProperties {
    FileProperties {
        is_link: true,
        ..target.clone()
    }
}

/// Returns what a user sees of a target that was reached through a link: the link's name, the target's rest.
#[must_use]
pub fn seen_through(link: &FileProperties, target: &FileProperties) -> FileProperties {
    FileProperties {
        name: link.name.clone(),
        is_link: false,
        ..target.clone()
    }
}

/// Returns the child list of a link node: exactly its target.
///
/// # Errors
/// [`RelativeError`].
pub fn link_children(
    link: &AbsoluteCapability,
    target: &AbsoluteCapability,
    properties: &FileProperties,
    rng: &mut dyn CryptoRng,
) -> Result<ChildList, RelativeError> {
    let entry = ChildEntry {
        name: properties.name.clone(),
        is_directory: Some(properties.is_directory),
        mime_type: Some(properties.mime_type.clone()),
        created_epoch_seconds: Some(properties.created.epoch_seconds()),
        capability: RelativeCapability::between(link, target, rng)?,
        unknown: Default::default(),
    };
    Ok([entry].into_iter().collect())
}

/// Returns the target of a link node.
///
/// # Errors
/// [`NodeError::LinkTargets`] for other than exactly one usable child, [`NodeError::CanNotRead`] when its
/// write key does not open.
pub fn link_target(
    link: &AbsoluteCapability,
    children: &ChildList,
) -> Result<AbsoluteCapability, NodeError> {
    let mut all = children.iter();
    match (all.next().and_then(Child::capability), all.next()) {
        (Some(target), None) => target.resolve(link).map_err(NodeError::CanNotRead),
        _ => Err(NodeError::LinkTargets {
            children: children.len(),
        }),
    }
}

/// Returns the target's link up to the link node, which is in `writer`'s space.
#[must_use]
pub fn link_as_parent(link: &RelativeCapability, writer: Writer) -> RelativeCapability {
    RelativeCapability {
        writer: Some(writer),
        w_base: None,
        ..link.clone()
    }
}
