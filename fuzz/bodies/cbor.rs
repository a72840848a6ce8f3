//! Whatever the bytes: no panic, one meaning in all modes, and the scan agrees with decoding.

use champ::{
    access::{cbor_block_ids, split_raw},
    cbor::{
        decode, decode_canonical, decode_prefix, decode_shared, scan_block, scan_block_lenient,
    },
};

pub fn run(data: &[u8]) {
    let lenient = decode(data);
    assert_eq!(decode_shared(&data.to_vec().into()), lenient);
    let canonical = decode_canonical(data);
    match &lenient {
        Ok(value) => {
            let bytes = value.encode();
            assert_eq!(canonical.is_ok(), bytes == data);
            assert_eq!(decode_canonical(&bytes).as_ref(), Ok(value));
            assert_eq!(decode_prefix(data), Ok((value.clone(), data.len())));
        }
        Err(_) => assert!(canonical.is_err()),
    }
    if let Ok(value) = &canonical {
        let scan = scan_block(data);
        assert_eq!(scan.is_ok(), cbor_block_ids(value).is_ok());
        if let Ok(scan) = scan {
            assert_eq!(scan.links, value.links());
            assert_eq!(cbor_block_ids(value), Ok(scan.bat_ids));
        }
    } else {
        assert!(scan_block(data).is_err());
    }
    if scan_block_lenient(data).is_ok() {
        assert!(lenient.is_ok());
    }
    if let Ok((_, used)) = decode_prefix(data) {
        assert!(used <= data.len());
    }
    if let Ok((_, rest)) = split_raw(&data.to_vec().into()) {
        assert!(rest.len() <= data.len());
    }
}
