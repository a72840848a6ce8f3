//! Bodies of the name API: items one after the other, each with its own limit (Spec: 01 §7, 10 §6).
//!
//! A body is declared as the list of its fields and their limits; that list is both what is written and what
//! is read, so the two cannot differ. Bytes after the last item are ignored, as official servers do.

use bytes::Bytes;
use champ::{
    Cid,
    access::BatWithId,
    cbor::{Record, RecordError, decode},
    data_stream::{Reader, Writer},
};

use super::{
    WireError,
    body::decode_bounded,
    op_log::OpLog,
    signup::{MAX_LINKS_VALUES, SentLinks},
};
use crate::chain::ClaimChain;

/// A body that is being read.
pub(super) struct Items<'a> {
    body: &'a Bytes,
    reader: Reader<'a>,
}

impl<'a> Items<'a> {
    /// Starts reading a body of at most `max` bytes.
    pub(super) fn of(body: &'a Bytes, max: usize) -> Result<Self, WireError> {
        let reader = limited(body, max)?;
        Ok(Self { body, reader })
    }

    /// Reads an item of at most `max` bytes, sharing the body's memory.
    fn shared(&mut self, max: usize) -> Result<Bytes, WireError> {
        Ok(self.body.slice_ref(self.reader.bytes(max)?))
    }
}

/// Starts reading a data stream of at most `max` bytes.
pub(super) fn limited(body: &Bytes, max: usize) -> Result<Reader<'_>, WireError> {
    if body.len() > max {
        return Err(WireError::TooLarge { max });
    }
    Ok(Reader::new(body))
}

/// Something that travels as one item, or as a boolean and perhaps an item.
pub(super) trait Item: Sized {
    /// Appends it.
    fn write(&self, out: Writer) -> Writer;

    /// Reads it; `max` is the limit in bytes of what has a length.
    fn read(items: &mut Items<'_>, max: usize) -> Result<Self, WireError>;
}

impl Item for String {
    fn write(&self, out: Writer) -> Writer {
        out.string(self)
    }

    fn read(items: &mut Items<'_>, max: usize) -> Result<Self, WireError> {
        Ok(items.reader.string(max)?.to_owned())
    }
}

impl Item for Bytes {
    fn write(&self, out: Writer) -> Writer {
        out.bytes(self)
    }

    fn read(items: &mut Items<'_>, max: usize) -> Result<Self, WireError> {
        items.shared(max)
    }
}

impl Item for bool {
    fn write(&self, out: Writer) -> Writer {
        out.boolean(*self)
    }

    fn read(items: &mut Items<'_>, _max: usize) -> Result<Self, WireError> {
        Ok(items.reader.boolean()?)
    }
}

impl Item for i64 {
    fn write(&self, out: Writer) -> Writer {
        out.long(*self)
    }

    fn read(items: &mut Items<'_>, _max: usize) -> Result<Self, WireError> {
        Ok(items.reader.long()?)
    }
}

/// A boolean, and the item when it is true.
impl<T: Item> Item for Option<T> {
    fn write(&self, out: Writer) -> Writer {
        let out = out.boolean(self.is_some());
        match self {
            Some(item) => item.write(out),
            None => out,
        }
    }

    fn read(items: &mut Items<'_>, max: usize) -> Result<Self, WireError> {
        Ok(match items.reader.boolean()? {
            true => Some(T::read(items, max)?),
            false => None,
        })
    }
}

impl<L: Record> Item for SentLinks<L> {
    fn write(&self, out: Writer) -> Writer {
        out.bytes(self.as_bytes())
    }

    fn read(items: &mut Items<'_>, max: usize) -> Result<Self, WireError> {
        // A slice would pin the whole request, blocks and all, for as long as a claim is kept.
        let bytes = Bytes::copy_from_slice(items.reader.bytes(max)?);
        let links = L::from_value(decode_bounded(&bytes, max, MAX_LINKS_VALUES)?)?;
        Ok(Self::as_received(links, bytes))
    }
}

impl Item for OpLog {
    fn write(&self, out: Writer) -> Writer {
        out.bytes(&self.encode())
    }

    fn read(items: &mut Items<'_>, max: usize) -> Result<Self, WireError> {
        Self::decode_item(&items.shared(max)?)
    }
}

impl Item for BatWithId {
    fn write(&self, out: Writer) -> Writer {
        out.bytes(&self.encode())
    }

    fn read(items: &mut Items<'_>, max: usize) -> Result<Self, WireError> {
        Ok(Self::from_value(decode(items.reader.bytes(max)?)?)?)
    }
}

impl Item for ClaimChain {
    fn write(&self, out: Writer) -> Writer {
        out.bytes(&self.encode())
    }

    fn read(items: &mut Items<'_>, max: usize) -> Result<Self, WireError> {
        Ok(Self::from_value(decode(items.reader.bytes(max)?)?)?)
    }
}

/// A server id in binary form.
impl Item for Cid {
    fn write(&self, out: Writer) -> Writer {
        out.bytes(&self.to_bytes())
    }

    fn read(items: &mut Items<'_>, max: usize) -> Result<Self, WireError> {
        let cid = Self::decode(items.reader.bytes(max)?);
        Ok(cid.map_err(|source| RecordError::Cid {
            field: "server id",
            source,
        })?)
    }
}

/// The limit of fields that have no length of their own.
pub(super) const FIXED: usize = 0;

/// Makes structs bodies of the name API: their fields in order, each with its limit in bytes.
macro_rules! stream_body {
    ($($body:ty: $max_bytes:expr, { $($field:ident: $max:expr),* $(,)? })*) => {$(
        impl $crate::wire::Body for $body {
            const MAX_BYTES: usize = $max_bytes;

            fn to_body(&self) -> Vec<u8> {
                let out = champ::data_stream::Writer::new();
                $(let out = $crate::wire::stream::Item::write(&self.$field, out);)*
                out.finish()
            }

            fn from_body(body: &bytes::Bytes) -> Result<Self, $crate::wire::WireError> {
                let mut items = $crate::wire::stream::Items::of(body, $max_bytes)?;
                Ok(Self {
                    $($field: $crate::wire::stream::Item::read(&mut items, $max)?,)*
                })
            }
        }
    )*};
}

pub(super) use stream_body;
