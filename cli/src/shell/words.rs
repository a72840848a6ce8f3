//! Cuts a line into words, as shells do: quotes, backslashes and comments, and nothing that is replaced.

/// Returns the words of a line; none for an empty one or a comment.
///
/// # Errors
///
/// When a quote is not closed or a backslash escapes nothing.
pub(super) fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\'', Some('\'')) | ('"', Some('"')) => quote = None,
            ('\\', None | Some('"')) => {
                let escaped = characters
                    .next()
                    .ok_or("a backslash at the end of the line")?;
                word.get_or_insert_default().push(escaped);
            }
            (_, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('#', None) if word.is_none() => break,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

/// Writes a word so that it is one word again.
pub(super) fn quoted(word: &str) -> String {
    let mut quoted = String::with_capacity(word.len());
    for c in word.chars() {
        if c.is_whitespace() || matches!(c, '\'' | '"' | '\\' | '#') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

/// Returns where the last, unfinished word of a line begins, and what it says so far.
pub(super) fn last(line: &str) -> (usize, String) {
    let mut start = 0;
    let mut is_in_word = false;
    let mut quote = None;
    let mut word = String::new();
    let mut characters = line.char_indices();
    while let Some((at, c)) = characters.next() {
        if !is_in_word && !c.is_whitespace() {
            (is_in_word, start) = (true, at);
            word.clear();
        }
        match (c, quote) {
            ('\'', Some('\'')) | ('"', Some('"')) => quote = None,
            ('\\', None | Some('"')) => word.extend(characters.next().map(|(_, c)| c)),
            (_, Some(_)) => word.push(c),
            ('\'' | '"', None) => quote = Some(c),
            (c, None) if c.is_whitespace() => is_in_word = false,
            (c, None) => word.push(c),
        }
    }
    if is_in_word {
        (start, word)
    } else {
        (line.len(), String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_as_shells_cut_them() {
        let split = |line| split(line).unwrap();
        assert_eq!(split("  put  a b "), ["put", "a", "b"]);
        assert_eq!(
            split("get 'a b' \"c 'd'\" e\\ f"),
            ["get", "a b", "c 'd'", "e f"]
        );
        assert_eq!(split("x'y z'\"\" ''"), ["xy z", ""]);
        assert_eq!(split("ls # all"), ["ls"]);
        assert_eq!(split("ls a#b '# c'"), ["ls", "a#b", "# c"]);
        assert!(split("  # nothing").is_empty());
        assert!(super::split("'a").is_err());
        assert!(super::split("a\\").is_err());
    }

    #[test]
    fn quoting_is_undone_by_cutting() {
        for word in [
            "plain",
            "a b",
            "it's",
            "\"",
            "back\\slash",
            "# x",
            "\u{e9} \u{1f600}",
        ] {
            assert_eq!(
                split(&format!("ls {}", quoted(word))).unwrap(),
                ["ls", word]
            );
        }
    }

    #[test]
    fn the_last_word_is_found_in_an_unfinished_line() {
        assert_eq!(last("get do"), (4, "do".into()));
        assert_eq!(last("get 'my fi"), (4, "my fi".into()));
        assert_eq!(last("get my\\ fi"), (4, "my fi".into()));
        assert_eq!(last("get "), (4, String::new()));
        assert_eq!(last(""), (0, String::new()));
        assert_eq!(last("l"), (0, "l".into()));
    }
}
