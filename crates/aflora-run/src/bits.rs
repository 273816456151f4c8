//! Numbers in JSON to the bit, for serde's `with`: JSON itself has neither NaN nor infinity.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes a number.
///
/// # Errors
/// Those of the serializer; as everywhere below.
pub fn serialize<S: Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
    number.to_bits().serialize(to)
}

/// Reads it.
///
/// # Errors
/// It is none.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    u64::deserialize(from).map(f64::from_bits)
}

/// Of several.
pub mod row {
    use super::*;

    /// Writes them.
    ///
    /// # Errors
    /// As [`serialize`](super::serialize).
    pub fn serialize<S: Serializer>(numbers: &[f64], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(numbers.iter().map(|number| number.to_bits()))
    }

    /// Reads them.
    ///
    /// # Errors
    /// As [`deserialize`](super::deserialize).
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
        let bits = Vec::<u64>::deserialize(from)?;
        Ok(bits.into_iter().map(f64::from_bits).collect())
    }
}

/// Of several in each of several rows.
pub mod rows {
    use super::*;

    /// Writes them.
    ///
    /// # Errors
    /// As [`serialize`](super::serialize).
    pub fn serialize<S: Serializer>(rows: &[Vec<f64>], to: S) -> Result<S::Ok, S::Error> {
        let bits = |row: &Vec<f64>| row.iter().map(|number| number.to_bits()).collect();
        to.collect_seq(rows.iter().map(|row| -> Vec<u64> { bits(row) }))
    }

    /// Reads them.
    ///
    /// # Errors
    /// As [`deserialize`](super::deserialize).
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Vec<f64>>, D::Error> {
        let rows = Vec::<Vec<u64>>::deserialize(from)?;
        let number = |row: Vec<u64>| row.into_iter().map(f64::from_bits).collect();
        Ok(rows.into_iter().map(number).collect())
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Answer;

    #[test]
    fn numbers_come_as_they_went_nan_and_infinity_too() {
        for number in [0.1, -0.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE / 3.0] {
            for answer in [Answer::Score(number), Answer::Scores(vec![1.0, number])] {
                let text = serde_json::to_string(&answer).unwrap();
                let back: Answer = serde_json::from_str(&text).unwrap();
                let bits = |answer: &Answer| match answer {
                    Answer::Score(number) => number.to_bits(),
                    Answer::Scores(numbers) => numbers[1].to_bits(),
                    other => panic!("{other:?}"),
                };
                assert_eq!(bits(&back), bits(&answer));
            }
        }
    }
}
