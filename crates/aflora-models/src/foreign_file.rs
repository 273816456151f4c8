//! What a file is that should be another: the words of a reader that met something else altogether
//! ("expected value at line 1") help nobody.

/// What the file that begins with `bytes` is, if it is known and can be no model's file of its
/// own; and what would be right.
pub(crate) fn what(bytes: &[u8]) -> Option<&'static str> {
    if bytes.is_empty() {
        return Some("it is empty: get it again");
    }
    if bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
        return Some(
            "it is a Git-LFS pointer, a few lines in place of the file: `git lfs pull` in its \
             folder gets the file itself",
        );
    }
    let start = &bytes[..bytes.len().min(512)];
    let text = String::from_utf8_lossy(start).to_lowercase();
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    if text.starts_with("<!doctype html") || text.starts_with("<html") {
        return Some(
            "it is a web page (HTML), perhaps a login page or an error of the server that it came \
             from: get it again",
        );
    }
    if text.starts_with("<?xml") {
        return Some("it is XML, perhaps an error of the server that it came from: get it again");
    }
    [
        (&b"GGUF"[..], "it is a GGUF file of llama.cpp: name it as the model (model=FILE.gguf)"),
        (b"\x89HDF", "it is a TensorFlow (HDF5) file, which is not read: get the safetensors"),
        (b"\x1f\x8b", "it is compressed with gzip: unpack it first"),
        (b"BZh", "it is compressed with bzip2: unpack it first"),
        (b"\xfd7zXZ", "it is compressed with xz: unpack it first"),
        (b"\x93NUMPY", "it is an array of NumPy, which is not read"),
    ]
    .into_iter()
    .find(|(magic, _)| bytes.starts_with(magic))
    .map(|(_, words)| words)
}

/// Whether the file that begins with `bytes` is PyTorch's.
pub(crate) fn is_pytorch(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02\x8a\x0a")
}

/// Whether the file that begins with `bytes` is a safetensors file: the length of a header, then
/// JSON.
pub(crate) fn is_safetensors(bytes: &[u8]) -> bool {
    let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
    length.is_some_and(|n| n < 1 << 27) && bytes.get(8) == Some(&b'{')
}
