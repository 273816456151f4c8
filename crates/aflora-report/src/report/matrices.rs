//! Where a matrix stands in a heat map, read from its name.
//!
//! `bert.encoder.layer.3.intermediate.dense.lora_A` is `inter.A` of layer 3: the first number is the
//! layer, what follows it the row, with A or B behind it. Where parts of a model number their layers
//! separately (`encoder.layers.0`, `decoder.layers.0`), the part stands in front. Components of a
//! matrix share their matrix's place.

use std::collections::{BTreeMap, HashMap, HashSet};

/// A matrix's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixPlace<'a> {
    /// Everything before the number.
    prefix: Vec<&'a str>,
    /// The layer.
    layer: u64,
    /// The module after the number, shortened.
    module: String,
    /// `A`, `B`, or nothing where a name does not say.
    side: &'static str,
}

impl<'a> MatrixPlace<'a> {
    /// Reads a name; without a number it is of layer 0.
    pub fn of(name: &'a str) -> Self {
        let parts: Vec<&str> = name.split('.').collect();
        // A longer number is no layer's: a map has a column for each up to the last.
        let layer = |p: &&str| (1..=4).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit());
        let number = parts.iter().position(layer);
        let (prefix, layer, rest) = match number {
            Some(i) => (parts[..i].to_vec(), parts[i].parse().unwrap_or(0), &parts[i + 1..]),
            None => (Vec::new(), 0, &parts[..]),
        };
        let (side, module) = match rest.split_last() {
            Some((last, module)) if last.ends_with("_A") || *last == "A" => ("A", module),
            Some((last, module)) if last.ends_with("_B") || *last == "B" => ("B", module),
            Some((last, module)) if last.starts_with("component") => ("", module),
            _ => ("", rest),
        };
        let words = module.iter().filter(|part| **part != "dense").map(|part| match *part {
            "intermediate" => "inter",
            "output" => "out",
            other => other,
        });
        MatrixPlace { prefix, layer, module: words.collect::<Vec<_>>().join("."), side }
    }

    /// The rows of a heat map, as the paper has them (B above A, later modules first), and each
    /// name's row and layer.
    pub fn rows(
        names: impl Iterator<Item = &'a str>,
    ) -> (Vec<String>, BTreeMap<&'a str, (usize, u64)>) {
        let places: Vec<(&str, MatrixPlace)> =
            names.map(|name| (name, MatrixPlace::of(name))).collect();
        let part = differing(&places);
        let row = |place: &MatrixPlace| {
            let in_front = part.and_then(|i| place.prefix.get(i)).map(|p| p.to_string());
            let words = [in_front.unwrap_or_default(), place.module.clone(), place.side.into()];
            words.into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>().join(".")
        };
        let mut rows: Vec<(String, &str)> = Vec::new();
        let mut seen = HashSet::new();
        for (_, place) in &places {
            let row = row(place);
            if seen.insert(row.clone()) {
                rows.push((row, place.side));
            }
        }
        rows.reverse();
        rows.sort_by_key(|(_, side)| match *side {
            "B" => 0,
            "A" => 1,
            _ => 2,
        });
        let rows: Vec<String> = rows.into_iter().map(|(name, _)| name).collect();
        let index: HashMap<&str, usize> =
            rows.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        let found = places
            .iter()
            .filter_map(|(name, place)| {
                Some((*name, (*index.get(row(place).as_str())?, place.layer)))
            })
            .collect();
        (rows, found)
    }
}

/// Which part of the prefixes tells them apart, if they differ.
fn differing(places: &[(&str, MatrixPlace)]) -> Option<usize> {
    let (_, first) = places.first()?;
    let longest = places.iter().map(|(_, p)| p.prefix.len()).max()?;
    (0..longest).find(|&i| places.iter().any(|(_, p)| p.prefix.get(i) != first.prefix.get(i)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_paper_s() {
        let mut names = Vec::new();
        for layer in 0..2 {
            for module in ["intermediate", "output"] {
                for side in ["A", "B"] {
                    names.push(format!("deberta.encoder.layer.{layer}.{module}.dense.lora_{side}"));
                }
            }
        }
        let (rows, places) = MatrixPlace::rows(names.iter().map(String::as_str));
        assert_eq!(rows, ["out.B", "inter.B", "out.A", "inter.A"]);
        assert_eq!(places["deberta.encoder.layer.1.intermediate.dense.lora_A"], (3, 1));
    }

    #[test]
    fn encoder_and_decoder_have_rows_of_their_own() {
        let names = ["model.encoder.layers.0.fc1.lora_A", "model.decoder.layers.0.fc1.lora_A"];
        let (rows, _) = MatrixPlace::rows(names.into_iter());
        assert_eq!(rows, ["decoder.fc1.A", "encoder.fc1.A"]);
    }

    #[test]
    fn a_number_that_no_layer_has_makes_no_column() {
        assert_eq!(MatrixPlace::of("h.18446744073709551615.mlp.lora_A").layer, 0);
        assert_eq!(MatrixPlace::of("h.99999.layer.31.mlp.lora_A").layer, 31);
    }

    #[test]
    fn components_and_names_without_a_layer_have_a_place() {
        let names = ["h.3.mlp.component0", "h.3.mlp.component1"];
        let (rows, places) = MatrixPlace::rows(names.into_iter());
        assert_eq!((rows, places.len()), (vec!["mlp".to_string()], 2));
        let (rows, places) = MatrixPlace::rows(["odd", ""].into_iter());
        assert!(!rows.is_empty() && places.contains_key("odd"));
    }
}
