//! The protobuf around what is signed: fields by number, of which unknown ones are passed over (Spec: 11 §2).

/// The fields of the outer record.
#[derive(Debug, Default)]
pub(super) struct Outer<'a> {
    pub(super) value: &'a [u8],
    pub(super) validity: &'a [u8],
    pub(super) validity_type: u64,
    pub(super) sequence: u64,
    pub(super) ttl: u64,
    pub(super) public_key: Option<&'a [u8]>,
    pub(super) signature: &'a [u8],
    pub(super) data: &'a [u8],
}

/// Reads the protobuf; `None` when it is none. The last of repeated fields counts, unknown ones do not.
pub(super) fn read_fields(mut rest: &[u8]) -> Option<Outer<'_>> {
    let mut outer = Outer::default();
    while !rest.is_empty() {
        let tag = read_number(&mut rest)?;
        match tag & 7 {
            0 => {
                let number = read_number(&mut rest)?;
                match tag >> 3 {
                    3 => outer.validity_type = number,
                    5 => outer.sequence = number,
                    6 => outer.ttl = number,
                    _ => {}
                }
            }
            2 => {
                let length = usize::try_from(read_number(&mut rest)?).ok()?;
                let (bytes, after) = rest.split_at_checked(length)?;
                rest = after;
                match tag >> 3 {
                    1 => outer.value = bytes,
                    4 => outer.validity = bytes,
                    7 => outer.public_key = Some(bytes),
                    8 => outer.signature = bytes,
                    9 => outer.data = bytes,
                    _ => {}
                }
            }
            _ => return None,
        }
    }
    Some(outer)
}

fn read_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

pub(super) fn write_number(field: u64, number: u64, out: &mut Vec<u8>) {
    write_varint(field << 3, out);
    write_varint(number, out);
}

pub(super) fn write_bytes(field: u64, bytes: &[u8], out: &mut Vec<u8>) {
    write_varint((field << 3) | 2, out);
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_fields_are_refused() {
        for bad in [
            &b"\x0a"[..],
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0b",
            b"\x08",
        ] {
            assert!(read_fields(bad).is_none());
        }
    }
}
