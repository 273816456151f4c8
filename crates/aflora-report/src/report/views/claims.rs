//! Orderings that the paper states, held against our averages.

use crate::report::document::{DocumentBlock, Table, TableEntry, Tone};
use crate::report::grid::Grid;
use crate::report::numbers::{signed, Difference, Verdict};
use aflora_record::results::Claim;

/// How our results stand to what the paper says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Our averages have the order, and intervals support it.
    Agrees,
    /// They have it, but it could be noise.
    AgreesInNoise,
    /// They have it, by one seed, which has no interval.
    AgreesOnce,
    /// They do not have it, but that could be noise.
    DisagreesInNoise,
    /// They do not have it, by one seed.
    DisagreesOnce,
    /// They have the opposite order, and intervals support that.
    Disagrees,
    /// There are no runs to compare.
    Unknown,
}

impl Standing {
    /// Of a pair, by how far the second is above the first.
    pub fn of(difference: Option<&Difference>) -> Self {
        match difference {
            None => Standing::Unknown,
            Some(d) => match (d.mean > 0.0, d.verdict()) {
                (true, Verdict::Higher) => Standing::Agrees,
                (true, Verdict::OneSeed) => Standing::AgreesOnce,
                (true, _) => Standing::AgreesInNoise,
                (false, Verdict::Lower) => Standing::Disagrees,
                (false, Verdict::OneSeed) => Standing::DisagreesOnce,
                (false, _) => Standing::DisagreesInNoise,
            },
        }
    }

    /// How a report states it.
    pub fn words(self) -> &'static str {
        match self {
            Standing::Agrees => "agrees",
            Standing::AgreesInNoise => "agrees, within the noise",
            Standing::AgreesOnce => "agrees; one seed: no interval",
            Standing::DisagreesInNoise => "disagrees, within the noise",
            Standing::DisagreesOnce => "disagrees; one seed: no interval",
            Standing::Disagrees => "disagrees",
            Standing::Unknown => "cannot be told: no seed has all tasks of both",
        }
    }

    /// How it is set.
    pub fn tone(self) -> Tone {
        match self {
            Standing::Agrees => Tone::Good,
            Standing::Disagrees => Tone::Bad,
            Standing::Unknown => Tone::Muted,
            _ => Tone::Plain,
        }
    }
}

/// Two neighbours in a claim's order, and how far the second is above the first.
pub type Pair<'a> = (&'a str, &'a str, Option<Difference>);

/// A pair in words: by how many points the second is above the first, or why that is unknown.
pub fn words(grid: &Grid, (low, high, difference): &Pair) -> String {
    let (high, low) = (grid.label(high), grid.label(low));
    match difference {
        None => format!("{high} above {low}: no seed has both"),
        Some(d) => {
            let interval = match d.interval {
                Some((from, to)) => format!("{} to {}", signed(from, 2), signed(to, 2)),
                None => d.verdict().words().to_string(),
            };
            format!("{high} above {low}: {} points ({interval})", signed(d.mean, 2))
        }
    }
}

/// The pairs of a claim.
pub fn pairs<'a>(grid: &Grid, claim: &'a Claim) -> Vec<Pair<'a>> {
    let neighbours = claim.order.windows(2);
    neighbours
        .map(|two| {
            let (low, high) = (two[0].as_str(), two[1].as_str());
            (low, high, Difference::of(grid.paired_average(high, low)))
        })
        .collect()
}

/// Of a whole claim: as its worst pair; unknown if one cannot be told and none disagrees.
pub fn whole(pairs: &[Pair]) -> Standing {
    let standings: Vec<Standing> = pairs.iter().map(|(_, _, d)| Standing::of(d.as_ref())).collect();
    let worst_first = [
        Standing::Disagrees,
        Standing::Unknown,
        Standing::DisagreesOnce,
        Standing::DisagreesInNoise,
        Standing::AgreesOnce,
        Standing::AgreesInNoise,
        Standing::Agrees,
    ];
    worst_first.into_iter().find(|s| standings.contains(s)).unwrap_or(Standing::Unknown)
}

/// The claims as a table, a row for each and one for each pair of neighbours.
pub fn blocks(grid: &Grid) -> Vec<DocumentBlock> {
    let claims = &grid.results.layout.claims;
    if claims.is_empty() {
        return Vec::new();
    }
    let head = ["What the paper says", "Ours", "Difference"];
    let mut table = Table {
        caption: "What the paper says, and whether our averages over tasks agree (95 % intervals)"
            .into(),
        words: true,
        head: head.map(String::from).to_vec(),
        rows: Vec::new(),
    };
    for claim in claims {
        let pairs = pairs(grid, claim);
        let standing = whole(&pairs);
        table.rows.push(vec![
            TableEntry::new(&claim.says),
            TableEntry::new(standing.words()).toned(standing.tone()),
            TableEntry::new(""),
        ]);
        for (low, high, difference) in &pairs {
            table.rows.push(pair(grid, low, high, difference.as_ref()));
        }
    }
    vec![DocumentBlock::table(table)]
}

fn pair(grid: &Grid, low: &str, high: &str, difference: Option<&Difference>) -> Vec<TableEntry> {
    let standing = Standing::of(difference);
    let name = format!("· {} above {}", grid.label(high), grid.label(low));
    let how_far = match difference {
        None => TableEntry::none("no seed has both"),
        Some(d) => TableEntry::new(signed(d.mean, 2)).noted(match d.interval {
            Some((low, high)) => {
                format!("{} to {}, n = {}", signed(low, 2), signed(high, 2), d.n)
            }
            None => d.verdict().words().to_string(),
        }),
    };
    vec![TableEntry::new(name), TableEntry::new(standing.words()).toned(standing.tone()), how_far]
}
