//! Text of tokens as they come: all pieces together are the text of all tokens, and nothing that was
//! shown is taken back.

use crate::common::fixture;
use crate::families::{families, texts};
use aflora_models::TextEncoder;
use proptest::prelude::*;

fn tokenizers() -> Vec<(&'static str, TextEncoder)> {
    ["llama_bpe", "bpe", "word_piece"]
        .map(|name| (name, TextEncoder::from_folder(&fixture(name), 1 << 20).unwrap()))
        .into()
}

fn pieces(encoder: &TextEncoder, ids: &[i64]) -> Vec<String> {
    let mut stream = encoder.stream();
    let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    pieces
}

#[test]
fn a_text_comes_piece_by_piece_and_no_character_in_parts() {
    for (name, encoder) in tokenizers() {
        for text in [
            "A film, twice 12 naïve ﬁlms.",
            "日本語 👍🏽 — “ok”  two spaces\n\nlines\t",
            "🏳️‍🌈🏳️‍🌈 e\u{301}\u{200d} \u{fffd} x",
            "",
            " leading",
        ] {
            let ids = encoder.encode_plain(&[text]).unwrap().remove(0);
            let pieces = pieces(&encoder, &ids);
            assert_eq!(pieces.concat(), encoder.decode(&ids).unwrap(), "{name}: {text}");
            // The character that stands for damage waits, be it meant or not.
            let early = &pieces[..pieces.len() - 1];
            assert!(early.iter().all(|piece| !piece.ends_with('\u{fffd}')), "{name}: {pieces:?}");
        }
    }
}

#[test]
fn texts_of_every_family_come_piece_by_piece() {
    for family in families() {
        let encoder = family.encoder();
        for ids in
            encoder.encode_plain(&texts().iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
        {
            let whole = encoder.decode(&ids).unwrap();
            assert_eq!(pieces(&encoder, &ids).concat(), whole, "{}: {ids:?}", family.name);
        }
    }
}

#[test]
fn a_token_without_a_text_does_not_part_bytes_of_one_character() {
    let encoder = TextEncoder::from_folder(&fixture("llama_bpe"), 64).unwrap();
    // Bytes that are no text together, each behind a byte and before a special token.
    let ids = [3, 0, 131, 0];
    assert_eq!(pieces(&encoder, &ids).concat(), encoder.decode(&ids).unwrap());
}

#[test]
fn text_comes_as_soon_as_it_is_certain() {
    let encoder = TextEncoder::from_folder(&fixture("bpe"), 64).unwrap();
    let ids = encoder.encode_plain(&["a é 日"]).unwrap().remove(0);
    let pieces = pieces(&encoder, &ids);
    assert_eq!(pieces.last().unwrap(), "", "nothing is left for the end: {pieces:?}");
    assert!(pieces.iter().filter(|piece| !piece.is_empty()).count() > 3, "{pieces:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_tokens_give_their_text(which in 0usize..3, seeds in prop::collection::vec(any::<u32>(), 0..40)) {
        let (name, encoder) = tokenizers().swap_remove(which);
        let ids: Vec<i64> =
            seeds.iter().map(|&seed| i64::from(seed) % encoder.vocab_size()).collect();
        if let Ok(text) = encoder.decode(&ids) {
            prop_assert_eq!(pieces(&encoder, &ids).concat(), text, "{}: {:?}", name, ids);
        }
    }
}
