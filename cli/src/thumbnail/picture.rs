//! From the bytes of a picture to a small JPEG: sizes are looked at before anything is decoded.

use std::io::Cursor;

use cryptree::properties::MAX_THUMBNAIL_BYTES;
use image::{
    DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage, Rgba,
    codecs::jpeg::JpegEncoder, metadata::Orientation,
};

/// Longer edge of a thumbnail, in pixels, as other clients of the network make it.
pub const EDGE_PIXELS: u32 = 400;
/// Most pixels that are decoded: 64 Mi.
pub const MAX_PIXELS: u64 = 64 << 20;
/// Largest decoded picture, in bytes.
pub(super) const MAX_DECODED_BYTES: u64 = 256 << 20;
/// What a thumbnail is.
pub(super) const MIME_TYPE: &str = "image/jpeg";
/// Bytes by which a picture is recognized.
pub(super) const MAGIC_BYTES: usize = 12;
/// Tried one after the other until the thumbnail is small enough.
const QUALITIES: [u8; 4] = [80, 60, 40, 20];

/// Kinds of pictures that thumbnails are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Picture {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// GIF; its first picture.
    Gif,
    /// WebP; its first picture.
    Webp,
}

impl Picture {
    /// Recognizes a picture by its first bytes; names play no part.
    #[must_use]
    pub fn of(start: &[u8]) -> Option<Self> {
        if start.starts_with(b"\xff\xd8\xff") {
            Some(Self::Jpeg)
        } else if start.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else if start.starts_with(b"GIF87a") || start.starts_with(b"GIF89a") {
            Some(Self::Gif)
        } else if start.starts_with(b"RIFF") && start.get(8..12) == Some(b"WEBP") {
            Some(Self::Webp)
        } else {
            None
        }
    }

    const fn format(self) -> ImageFormat {
        match self {
            Self::Jpeg => ImageFormat::Jpeg,
            Self::Png => ImageFormat::Png,
            Self::Gif => ImageFormat::Gif,
            Self::Webp => ImageFormat::WebP,
        }
    }
}

/// Makes a JPEG of at most [`EDGE_PIXELS`] in both directions and [`MAX_THUMBNAIL_BYTES`], upright; `None` for whatever
/// cannot be decoded within the limits.
pub(super) fn thumbnail(picture: &[u8]) -> Option<Vec<u8>> {
    let format = Picture::of(picture)?.format();
    let mut reader = ImageReader::with_format(Cursor::new(picture), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > MAX_PIXELS || decoder.total_bytes() > MAX_DECODED_BYTES {
        return None;
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let decoded = DynamicImage::from_decoder(decoder).ok()?;
    let mut small = if width <= EDGE_PIXELS && height <= EDGE_PIXELS {
        decoded
    } else {
        decoded.thumbnail(EDGE_PIXELS, EDGE_PIXELS)
    };
    small.apply_orientation(orientation);
    let small = on_white(&small);
    QUALITIES.into_iter().find_map(|quality| {
        let mut made = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut made, quality);
        small.write_with_encoder(encoder).ok()?;
        Some(made).filter(|made| made.len() <= MAX_THUMBNAIL_BYTES)
    })
}

/// Puts what is transparent on white, since JPEG knows no transparency.
fn on_white(picture: &DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.to_rgb8();
    }
    let picture = picture.to_rgba8();
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let Rgba([red, green, blue, alpha]) = *picture.get_pixel(x, y);
        let mix = |color: u8| {
            let (color, alpha) = (u16::from(color), u16::from(alpha));
            // At most 255 * 255, so the quotient is a byte.
            let mixed = (color * alpha + 255 * (255 - alpha)) / 255;
            u8::try_from(mixed).unwrap_or(u8::MAX)
        };
        image::Rgb([mix(red), mix(green), mix(blue)])
    })
}

#[cfg(test)]
mod tests {
    use image::{ExtendedColorType, ImageEncoder as _};

    use super::*;

    fn noise(width: u32, height: u32) -> DynamicImage {
        let mut state = 1u32;
        DynamicImage::ImageRgb8(RgbImage::from_fn(width, height, |_, _| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [a, b, c, _] = state.to_be_bytes();
            image::Rgb([a, b, c])
        }))
    }

    fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn size_of(made: &[u8]) -> (u32, u32) {
        let decoded = image::load_from_memory_with_format(made, ImageFormat::Jpeg).unwrap();
        (decoded.width(), decoded.height())
    }

    #[test]
    fn each_format_becomes_a_small_jpeg() {
        for format in [
            ImageFormat::Jpeg,
            ImageFormat::Png,
            ImageFormat::Gif,
            ImageFormat::WebP,
        ] {
            let made = thumbnail(&encoded(&noise(900, 450), format)).unwrap();
            assert_eq!(size_of(&made), (EDGE_PIXELS, EDGE_PIXELS / 2), "{format:?}");
            // Noise is the worst that can be asked of the encoder.
            assert!(made.len() <= MAX_THUMBNAIL_BYTES, "{format:?}");
        }
    }

    #[test]
    fn small_pictures_keep_their_size_and_narrow_ones_an_edge() {
        let small = encoded(&noise(30, 20), ImageFormat::Png);
        assert_eq!(size_of(&thumbnail(&small).unwrap()), (30, 20));
        let narrow = encoded(&noise(4000, 1), ImageFormat::Png);
        assert_eq!(size_of(&thumbnail(&narrow).unwrap()), (EDGE_PIXELS, 1));
    }

    #[test]
    fn what_is_transparent_becomes_white() {
        let clear = DynamicImage::ImageRgba8(image::RgbaImage::new(8, 8));
        let made = thumbnail(&encoded(&clear, ImageFormat::Png)).unwrap();
        let made = image::load_from_memory(&made).unwrap().to_rgb8();
        assert!(made.pixels().all(|pixel| pixel.0.iter().all(|c| *c > 250)));
    }

    #[test]
    fn fs_12_a_bomb_is_refused_by_its_header() {
        // 64k x 64k: the header says so, and hardly anything follows.
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        let mut header = b"IHDR".to_vec();
        header.extend(65_535u32.to_be_bytes());
        header.extend(65_535u32.to_be_bytes());
        header.extend([8, 6, 0, 0, 0]);
        for chunk in [&header[..], b"IDAT", b"IEND"] {
            png.extend(u32::try_from(chunk.len() - 4).unwrap().to_be_bytes());
            png.extend(chunk);
            png.extend(crc(chunk).to_be_bytes());
        }
        assert_eq!(thumbnail(&png), None);
        // The same without tricks: many pixels in few bytes, one more than is decoded.
        let wide = u32::try_from(MAX_PIXELS / 64 + 1).unwrap();
        let mut bomb = Vec::new();
        let black = vec![0; usize::try_from(wide).unwrap() * 64];
        image::codecs::png::PngEncoder::new_with_quality(
            &mut bomb,
            image::codecs::png::CompressionType::Fast,
            image::codecs::png::FilterType::NoFilter,
        )
        .write_image(&black, wide, 64, ExtendedColorType::L8)
        .unwrap();
        assert!(bomb.len() < 1 << 20);
        assert_eq!(thumbnail(&bomb), None);
    }

    #[test]
    fn fs_12_cut_and_damaged_pictures_give_none_or_a_picture_and_never_a_panic() {
        for format in [
            ImageFormat::Jpeg,
            ImageFormat::Png,
            ImageFormat::Gif,
            ImageFormat::WebP,
        ] {
            let whole = encoded(&noise(60, 40), format);
            for cut in (0..whole.len()).step_by(whole.len() / 40 + 1) {
                let _ = thumbnail(&whole[..cut]);
            }
            let mut state = 7usize;
            for _ in 0..200 {
                let mut damaged = whole.clone();
                for _ in 0..3 {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let at = (state >> 33) % damaged.len();
                    damaged[at] ^= 1 << (state >> 60 & 7);
                }
                if let Some(made) = thumbnail(&damaged) {
                    let (width, height) = size_of(&made);
                    assert!(width.max(height) <= EDGE_PIXELS);
                }
            }
        }
        assert_eq!(thumbnail(b""), None);
        assert_eq!(thumbnail(b"<svg><use href='#a'/></svg>"), None);
    }

    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
            })
        })
    }
}
