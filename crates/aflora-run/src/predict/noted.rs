//! Lines of the input with something that a warning at the end tells.

/// Lines of the input that a warning at the end will name.
#[derive(Debug, Default)]
pub struct NotedLines {
    first: Vec<usize>,
    count: usize,
}

impl NotedLines {
    /// How many lines a message names; of the others it gives the count.
    const TOLD: usize = 10;

    /// Takes in a line.
    pub fn add(&mut self, line: usize) {
        self.count += 1;
        if self.count <= Self::TOLD {
            self.first.push(line);
        }
    }

    /// Tells of the lines, if there are any: what is with one, and with several.
    pub fn tell(&mut self, one: &str, several: &str) {
        self.first.sort_unstable();
        let lines: Vec<String> = self.first.iter().map(usize::to_string).collect();
        let lines = lines.join(", ");
        match (self.count, self.count - self.first.len()) {
            (0, _) => {}
            (1, _) => tracing::warn!("1 {one}: line {lines}"),
            (n, 0) => tracing::warn!("{n} {several}: lines {lines}"),
            (n, more) => tracing::warn!("{n} {several}: lines {lines} and {more} more"),
        }
    }
}
