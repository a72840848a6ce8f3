//! The passphrase a client offers at sign-up (Spec: 02 §10).

use bip39::Language;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// Returns seven random words of the BIP-39 English list, joined with `-`: 77 bits.
pub fn passphrase(rng: &mut dyn CryptoRng) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0u8; 16]);
    rng.fill_bytes(bytes.as_mut_slice());
    let list = Language::English.word_list();
    let (pairs, _) = bytes.as_chunks::<2>();
    let mut phrase = Zeroizing::new(String::with_capacity(WORDS * 9));
    for [high, low] in pairs.iter().take(WORDS) {
        if !phrase.is_empty() {
            phrase.push('-');
        }
        let index = usize::from(*high) * 8 + usize::from(low % 8);
        phrase.push_str(list.get(index).copied().unwrap_or_default());
    }
    phrase
}

const WORDS: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Replay;

    #[test]
    fn seven_words_by_the_fixed_rule() {
        let zeros = Replay::of([vec![0; 16]]);
        assert_eq!(*passphrase(&mut { zeros }), ["abandon"; 7].join("-"));
        let ones = Replay::of([vec![0xff; 16]]);
        assert_eq!(*passphrase(&mut { ones }), ["zoo"; 7].join("-"));
        let mut counting = vec![0; 16];
        counting[1] = 0xf9; // only the low three bits of the second byte count
        counting[2] = 1;
        let words = passphrase(&mut Replay::of([counting]));
        let list = Language::English.word_list();
        assert!(words.starts_with(&format!("{}-{}-abandon", list[1], list[8])));
    }

    #[test]
    fn the_list_is_the_english_one() {
        let list = Language::English.word_list();
        assert_eq!(list.len(), 2048);
        assert!(list.is_sorted() && list.iter().all(|word| word.len() <= 8));
    }
}
