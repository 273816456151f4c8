//! The tensors of a GGUF file, by the names that they have in Hugging Face's checkpoints.

use super::contents::{contiguous, Contents, Layout, TensorEntry};
use crate::gguf::{Format, Header, ModelHeader};

pub(super) fn read(bytes: &[u8]) -> Result<Contents, String> {
    let header = Header::read(bytes)?;
    let model = ModelHeader::of(&header)?;
    let mut contents = Contents::default();
    for (name, stored) in &header.tensors {
        let Some((name, arrangement)) = model.tensor(name, &stored.shape)? else { continue };
        let layout = match stored.format {
            Ok(Format::Plain(kind)) => Layout::Strided(kind, contiguous(&stored.shape)),
            Ok(Format::Blocks(format)) => Layout::Blocks(format),
            Err(format) => {
                contents.unread.insert(name, format!("a tensor of the format {format}"));
                continue;
            }
        };
        let (shape, offset) = (stored.shape.clone(), stored.offset);
        contents.tensors.insert(name, TensorEntry { shape, layout, offset, arrangement });
    }
    Ok(contents)
}
