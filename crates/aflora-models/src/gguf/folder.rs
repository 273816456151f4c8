//! The files of Hugging Face's layout that a GGUF file's header stands for.

use super::header::Header;
use super::model::ModelHeader;
use super::tokenizer;
use serde_json::{Map, Value};

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Whether the header stands for a file of this name.
pub(crate) fn has(header: &Header<'_>, name: &str) -> bool {
    match name {
        CONFIG => true,
        TOKENIZER | TOKENIZER_CONFIG => tokenizer::is_in(header),
        _ => false,
    }
}

/// The file of this name; none where the header stands for none.
///
/// # Errors
/// The header lacks something for it, or asks for something that is not read.
pub(crate) fn file(header: &Header<'_>, name: &str) -> Result<Option<Vec<u8>>, String> {
    if !has(header, name) {
        return Ok(None);
    }
    Ok(match name {
        TOKENIZER => Some(tokenizer::tokenizer_json(header)?.into_bytes()),
        TOKENIZER_CONFIG => Some(text(&tokenizer::tokenizer_config(header)?)),
        CONFIG => Some(text(&ModelHeader::of(header)?.config()?)),
        _ => None,
    })
}

fn text(keys: &Map<String, Value>) -> Vec<u8> {
    serde_json::to_vec_pretty(keys).unwrap_or_default()
}
