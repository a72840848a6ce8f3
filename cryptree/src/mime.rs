//! Choosing a mime type (Spec: 20 §5). Only a convention: nothing may depend on it for safety.

/// Leading bytes that [`mime_type`] looks at.
pub const HEADER_BYTES: usize = 40;

/// Returns the mime type of a file from its first [`HEADER_BYTES`] bytes (or all) and its name.
///
/// Magic numbers decide first; then, for text, the extension.
pub fn mime_type(name: &str, header: &[u8]) -> &'static str {
    let header = header.get(..HEADER_BYTES).unwrap_or(header);
    let extension = name
        .rsplit_once('.')
        .map(|(_, extension)| extension.to_ascii_lowercase())
        .unwrap_or_default();
    let by_magic = MAGIC
        .iter()
        .find(|magic| {
            header
                .get(magic.offset..)
                .is_some_and(|h| h.starts_with(magic.bytes))
        })
        .map(|magic| magic.mime_type);
    match by_magic {
        Some(PNG) if extension == "ico" => return "image/vnd.microsoft.icon",
        Some(ZIP) => return lookup(ZIP_BASED, &extension).unwrap_or(ZIP),
        Some(RIFF) => return riff(header),
        Some(MP4) => return iso_media(header),
        // Two letters are not enough: bitmaps have zeros after their length.
        Some(BMP) if header.get(6..10) != Some(&[0; 4]) => {}
        Some(mime_type) => return mime_type,
        None => {}
    }
    let Some(text) = leading_text(header) else {
        return "application/octet-stream";
    };
    if let Some(mime_type) = lookup(TEXT_EXTENSIONS, &extension) {
        return mime_type;
    }
    if text.contains("html>") || text.contains("<html") {
        "text/html"
    } else {
        "text/plain"
    }
}

/// Returns the header as text if it is UTF-8, apart from a character cut off at its end.
fn leading_text(header: &[u8]) -> Option<&str> {
    match std::str::from_utf8(header) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() && header.len() == HEADER_BYTES => {
            let (whole, _) = header.split_at_checked(error.valid_up_to())?;
            std::str::from_utf8(whole).ok()
        }
        Err(_) => None,
    }
}

fn lookup(table: &[(&str, &'static str)], extension: &str) -> Option<&'static str> {
    table
        .iter()
        .find(|(known, _)| *known == extension)
        .map(|(_, mime_type)| *mime_type)
}

/// Containers that start with `RIFF` and a length.
fn riff(header: &[u8]) -> &'static str {
    match header.get(8..12) {
        Some(b"WEBP") => "image/webp",
        Some(b"WAVE") => "audio/wav",
        Some(b"AVI ") => "video/x-msvideo",
        _ => "application/octet-stream",
    }
}

/// ISO base media files, by their brand.
fn iso_media(header: &[u8]) -> &'static str {
    match header.get(8..12) {
        Some(b"qt  ") => "video/quicktime",
        Some(b"M4A ") => "audio/mp4",
        Some(b"heic" | b"heix") => "image/heic",
        Some(b"avif") => "image/avif",
        Some(b"3gp4" | b"3gp5") => "video/3gpp",
        _ => MP4,
    }
}

struct Magic {
    offset: usize,
    bytes: &'static [u8],
    mime_type: &'static str,
}

const fn magic(offset: usize, bytes: &'static [u8], mime_type: &'static str) -> Magic {
    Magic {
        offset,
        bytes,
        mime_type,
    }
}

const PNG: &str = "image/png";
const BMP: &str = "image/bmp";
const ZIP: &str = "application/zip";
const RIFF: &str = "riff";
const MP4: &str = "video/mp4";

const MAGIC: &[Magic] = &[
    magic(0, b"\x89PNG\r\n\x1a\n", PNG),
    magic(0, b"\xff\xd8\xff", "image/jpg"),
    magic(0, b"GIF87a", "image/gif"),
    magic(0, b"GIF89a", "image/gif"),
    magic(0, b"BM", BMP),
    magic(0, b"\0\0\x01\0", "image/vnd.microsoft.icon"),
    magic(0, b"RIFF", RIFF),
    magic(4, b"ftyp", MP4),
    magic(0, b"\x1a\x45\xdf\xa3", "video/webm"),
    magic(0, b"OggS", "application/ogg"),
    magic(0, b"ID3", "audio/mpeg"),
    magic(0, b"fLaC", "audio/flac"),
    magic(0, b"MThd", "audio/midi"),
    magic(0, b"%PDF", "application/pdf"),
    magic(0, b"PK\x03\x04", ZIP),
    magic(0, b"\x1f\x8b", "application/x-gzip"),
    magic(0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    magic(0, b"Rar!\x1a\x07", "application/x-rar-compressed"),
    magic(0, b"BEGIN:VCALENDAR", "text/calendar"),
    magic(0, b"BEGIN:VCARD", "text/vcard"),
    magic(0, b"<svg ", "image/svg+xml"),
    // A list of type number 17 and a record: a post of the social feed.
    magic(0, b"\x82\x11", "application/vnd.peergos-post"),
];

/// Formats that are ZIP archives inside.
const ZIP_BASED: &[(&str, &str)] = &[
    (
        "docx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ),
    (
        "xlsx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ),
    (
        "pptx",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odp", "application/vnd.oasis.opendocument.presentation"),
    ("epub", "application/epub+zip"),
    ("jar", "application/java-archive"),
    ("apk", "application/vnd.android.package-archive"),
];

/// Extensions that decide for text files.
const TEXT_EXTENSIONS: &[(&str, &str)] = &[
    ("c", "text/x-c"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    // The doubled type is what other clients write.
    ("excalidraw", "text/application/vnd.excalidraw+json"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("ics", "text/calendar"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("md", "text/md"),
    ("svg", "image/svg+xml"),
    ("vcf", "text/vcard"),
    ("xml", "text/xml"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_off_last_character_is_still_text() {
        let text = "x".repeat(39) + "\u{e4}";
        assert_eq!(mime_type("a", text.as_bytes()), "text/plain");
        // A whole file that ends inside a character is not text.
        assert_eq!(mime_type("a", b"x\xc3"), "application/octet-stream");
        assert_eq!(mime_type("a", b"x\xffx"), "application/octet-stream");
    }

    #[test]
    fn text_that_starts_like_a_bitmap_is_text() {
        assert_eq!(mime_type("BM.txt", b"BMW and others"), "text/plain");
        assert_eq!(mime_type("a", b"BM\x10\0\0\0\0\0\0\0"), "image/bmp");
    }

    #[test]
    fn only_the_header_counts() {
        let late = ["x".repeat(40).as_bytes(), b"<html>\xff"].concat();
        assert_eq!(mime_type("a", &late), "text/plain");
    }
}
