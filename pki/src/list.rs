//! Records that are lists: elements in a fixed order (Spec: 01 §1.7).

use champ::cbor::{RecordError, Value};

/// Takes the first `N` elements of a list; further ones are ignored, as readers must.
///
/// # Errors
/// [`RecordError::WrongKind`] when `value` is no list, [`RecordError::Missing`] when it is too short.
pub(crate) fn elements<const N: usize>(
    value: Value,
    record: &'static str,
) -> Result<[Value; N], RecordError> {
    let mut items = value.into_list(record)?;
    items.truncate(N);
    <[Value; N]>::try_from(items).map_err(|_| RecordError::Missing(record))
}

/// Takes a variant list: a type code that must be `code`, then one element.
///
/// # Errors
/// As [`elements`], and [`RecordError::OutOfRange`] for another code.
pub(crate) fn variant(value: Value, code: i64, record: &'static str) -> Result<Value, RecordError> {
    let [found, content] = elements(value, record)?;
    if found.into_int(record)? != code {
        return Err(RecordError::OutOfRange { field: record });
    }
    Ok(content)
}
