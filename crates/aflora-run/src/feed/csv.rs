//! The cells of CSV rows (RFC 4180), whatever stands between them.

/// Where in a CSV cell the next character stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum CellState {
    /// At its start.
    #[default]
    Start,
    /// In one without quotes, or behind quoted text: a quote is a character there.
    Plain,
    /// Between quotes.
    Quoted,
    /// Behind a quote that ends the quoted text, or is the first of a doubled one.
    Closed,
}

/// A CSV row that is being read.
#[derive(Debug)]
pub(super) struct Record {
    delimiter: char,
    cells: Vec<String>,
    cell: String,
    state: CellState,
}

impl Record {
    /// A row whose cells stand between `delimiter`s.
    pub fn new(delimiter: char) -> Self {
        Record { delimiter, cells: Vec::new(), cell: String::new(), state: CellState::Start }
    }

    /// Reads a line without its end.
    pub fn read(&mut self, line: &str) {
        for c in line.chars() {
            self.state = match (self.state, c) {
                (CellState::Start, '"') => CellState::Quoted,
                (CellState::Quoted, '"') => CellState::Closed,
                (CellState::Start | CellState::Plain | CellState::Closed, c)
                    if c == self.delimiter =>
                {
                    self.cells.push(std::mem::take(&mut self.cell));
                    CellState::Start
                }
                (CellState::Quoted, c) | (CellState::Closed, c @ '"') => {
                    self.cell.push(c);
                    CellState::Quoted
                }
                (_, c) => {
                    self.cell.push(c);
                    CellState::Plain
                }
            };
        }
    }

    /// Whether the line that was read ends within quotes: the row goes on behind this end of it.
    pub fn goes_on(&mut self, end: &str) -> bool {
        let goes_on = self.state == CellState::Quoted;
        if goes_on {
            self.cell.push_str(end);
        }
        goes_on
    }

    /// The cells.
    pub fn finish(mut self) -> Vec<String> {
        self.cells.push(self.cell);
        self.cells
    }
}

/// What may stand between cells, the usual first.
const DELIMITERS: [char; 4] = [',', ';', '\t', '|'];

/// What stands between the cells of a header, whose first line this is: what there is most of
/// outside quotes.
pub(super) fn delimiter_of(header: &str) -> char {
    let mut counts = [0; DELIMITERS.len()];
    let mut quoted = false;
    for c in header.chars() {
        quoted ^= c == '"';
        if let Some(at) = DELIMITERS.iter().position(|d| *d == c).filter(|_| !quoted) {
            counts[at] += 1;
        }
    }
    // The first of those that there are as many of.
    let most = counts.iter().copied().max().unwrap_or(0);
    DELIMITERS[counts.iter().position(|n| *n == most).unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_tells_what_stands_between_cells() {
        for (header, expected) in [
            ("text,label", ','),
            ("text;label", ';'),
            ("text\tlabel\tid", '\t'),
            ("a|b", '|'),
            ("text", ','),
            ("\"a;b;c\",label", ','),
            ("a;\"b, c, d, e\"", ';'),
            ("a,b;c", ','),
        ] {
            assert_eq!(delimiter_of(header), expected, "{header}");
        }
    }
}
