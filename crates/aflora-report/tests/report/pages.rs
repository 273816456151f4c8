//! A page as a whole: its order, its words for nothing, its time.

use crate::support::*;
use aflora_record::results::{Layout, Outcome, Results, View};
use aflora_report::report::{csv, html, markdown, NamedResults, Report};

#[test]
fn the_time_of_a_report_grows_with_its_cells_and_not_with_their_square() {
    let grid = |seeds: u64| {
        let mut results = results();
        results.layout.show = vec![View::Table, View::Differences];
        results.layout.methods = (0..10).map(|m| row(&format!("m{m}"), "Method")).collect();
        results.layout.tasks = (0..8).map(|t| task(&format!("t{t}"))).collect();
        results.layout.reference = Some("m0".into());
        results.layout.claims = Vec::new();
        let seeds = 0..seeds;
        results.cells = seeds
            .flat_map(|s| (0..10).flat_map(move |m| (0..8).map(move |t| (s, m, t))))
            .map(|(s, m, t)| cell("tiny", &format!("t{t}"), &format!("m{m}"), s, done(0.5)))
            .collect();
        results
    };
    let seconds = |results: &Results| {
        let named = NamedResults { name: "big".into(), results: results.clone() };
        let time = || {
            let began = std::time::Instant::now();
            assert!(markdown::render(&Report::of(&named)).contains("runs are done"));
            csv::render(&named.results).unwrap();
            began.elapsed().as_secs_f64()
        };
        time().min(time()).min(time())
    };
    // Sixteen times the cells: 256 times the time, if it grew with their square.
    let (few, many) = (seconds(&grid(6)), seconds(&grid(96)));
    assert!(many < 64.0 * few, "{few} s for 480 cells, {many} s for 7,680");
}

#[test]
fn a_page_of_several_experiments_answers_them_first() {
    let mut other = results();
    other.layout.title = "Where do they freeze?".into();
    other.layout.about = "A question in a sentence. And more of it.".into();
    other.layout.claims = Vec::new();
    other.layout.reference = None;
    other.layout.show = vec![View::Heatmap, View::Table];
    let page = html::render(&[of(&results()), of(&other)]);
    well_formed(&page);
    let first = page.split("<article").next().unwrap();
    for words in [
        "<a href=\"#r1\">Does freezing pay?</a>",
        "<span>The paper: Ours is above LoRA</span>",
        "<span>agrees</span><small>Ours above LoRA: +5.46 points (+4.48 to +6.45)\non tiny</small>",
        "<a href=\"#r2\">Where do they freeze?</a>",
        "A question in a sentence.",
        "MRPC: when matrices froze (Ours): First inter.A of layer 0",
    ] {
        assert!(first.contains(words), "{words}: {first}");
    }
    assert!(!first.contains("And more of it"));
    other.layout.show = vec![View::Table];
    let page = html::render(&[of(&results()), of(&other)]);
    assert!(page.split("<article").next().unwrap().contains("Highest average: Ours, 81.83 points"));
    other.cells.iter_mut().for_each(|cell| cell.outcome = Outcome::Missing);
    let page = html::render(&[of(&results()), of(&other)]);
    assert!(page.split("<article").next().unwrap().contains("no run is done"));
    // Of one alone the page begins with itself.
    assert!(!html::render(&[of(&results())]).contains("What was asked"));
}

#[test]
fn numbers_that_are_not_finite_never_reach_a_file() {
    let mut results = results();
    for cell in &mut results.cells {
        let Outcome::Done(f) = &mut cell.outcome else { continue };
        f.seconds.median_step = f64::NAN;
        f.parameters.time_average = f64::INFINITY;
        f.tokens_per_second = f64::NEG_INFINITY;
        f.curve[2].loss = f64::NAN;
        f.checks[1].scores = [f64::NAN, 0.0, f64::INFINITY];
        f.checks[0].threshold = None;
        f.best.metrics.insert(METRIC.into(), Some(f64::NAN));
        f.evaluations[0].metrics.insert(METRIC.into(), Some(f64::INFINITY));
    }
    let page = html::render(&[of(&results)]);
    let texts = [page, md(&results), csv::render(&results).unwrap()];
    for text in &texts {
        for word in ["NaN", "inf,", ">inf", "-inf", "inf\"", "| inf"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
    }
    assert_eq!(entries(&texts[1], "LoRA")[1], "undefined");
}

#[test]
fn empty_results_still_make_a_report() {
    let mut results = results();
    results.cells.clear();
    assert!(html::render(&[of(&results)]).contains("Does freezing pay?"));
    results.layout = Layout { methods: vec![], tasks: vec![], claims: vec![], ..results.layout };
    results.cells.push(cell("m", "t", "x", 1, Outcome::Missing));
    assert!(md(&results).contains("0 of 1 runs are done"));
}

#[test]
fn the_layout_decides_what_is_shown_and_in_which_order() {
    let mut results = results();
    results.layout.show = vec![View::Bars, View::Table];
    let markdown = md(&results);
    let headings: Vec<&str> = markdown.lines().filter(|l| l.starts_with("## ")).collect();
    assert_eq!(headings, ["## In short", "## Cost", "## Results", "## Where it comes from"]);
    assert!(markdown.contains("2000-02-29"), "the day of the runs");
}

#[test]
fn a_description_of_lines_with_carriage_returns_keeps_its_paragraphs() {
    let mut results = results();
    results.layout.about = "one\r\ntwo\r\n\r\nthree\r\n".into();
    let report = of(&results);
    assert!(markdown::render(&report).contains("\n\none\ntwo\n\nthree\n\n"));
    assert!(html::render(&[report]).contains("<p>one\ntwo</p>\n<p>three</p>"));
}
