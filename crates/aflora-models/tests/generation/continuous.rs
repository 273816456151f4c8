//! Texts that are written side by side, each at its own length, are those that are written in step.

use super::common::cpu;
use super::common::tiny::Tiny;
use super::common::writers::batch;
use aflora_models::generate::{
    write_each, ContinuousWriter, DecodingState, GenerationConfig, Pace, SpecialTokens,
    TextGenerator, Written,
};
use aflora_models::{Batch, Result};
use std::ops::ControlFlow;
use tch::{Device, Tensor};

/// A model without slots: its texts are written in step.
struct InStep<'a>(&'a dyn TextGenerator);

impl TextGenerator for InStep<'_> {
    fn tokens(&self) -> &SpecialTokens {
        self.0.tokens()
    }

    fn start<'a>(
        &'a self,
        batch: &Batch,
        room: i64,
    ) -> Result<(Tensor, Box<dyn DecodingState + 'a>)> {
        self.0.start(batch, room)
    }
}

/// What is written after each prompt by itself, in step.
fn alone(
    generator: &dyn TextGenerator,
    prompts: &[&[i64]],
    numbers: &[u64],
    config: &GenerationConfig,
) -> Vec<Vec<i64>> {
    let mut go_on = |_, _| ControlFlow::Continue(());
    let write = |(prompt, number): (&&[i64], &u64)| {
        let ids = Tensor::from_slice(prompt).unsqueeze(0);
        let batch = Batch::new(ids.shallow_clone(), ids.ones_like());
        let texts = write_each(&InStep(generator), &batch, config, &[*number], &mut go_on);
        texts.unwrap().remove(0)
    };
    prompts.iter().zip(numbers).map(write).collect()
}

/// The texts as a writer tells them: token by token, and whole.
fn written(
    writer: &mut ContinuousWriter<'_>,
    prompts: &[&[i64]],
    numbers: &[u64],
) -> [Vec<Vec<i64>>; 2] {
    let mut told = vec![Vec::new(); prompts.len()];
    let mut whole = vec![None; prompts.len()];
    writer
        .write(prompts, numbers, &mut |written| {
            match written {
                Written::Token(text, id) => told[text].push(id),
                Written::Text(text, ids) => assert!(whole[text].replace(ids).is_none(), "once"),
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    [told, whole.into_iter().map(Option::unwrap).collect()]
}

/// Prompts of different lengths: what a tiny model is given, and beginnings of it.
fn prompts(tiny: &Tiny) -> Vec<Vec<i64>> {
    let given = batch(&tiny.io, "right");
    let ids = Vec::<Vec<i64>>::try_from(&given.input_ids).unwrap();
    let mask = Vec::<Vec<i64>>::try_from(&given.attention_mask).unwrap();
    let mut prompts = Vec::new();
    for (ids, mask) in ids.into_iter().zip(mask) {
        let whole = mask.iter().sum::<i64>() as usize;
        let lengths = [whole, 1, whole / 2, whole.saturating_sub(1)];
        prompts.extend(lengths.map(|length| ids[..length.max(1)].to_vec()));
    }
    prompts
}

/// As on a CPU and as on a GPU, and odd ones; on a CPU nothing is recorded, whatever is asked for.
fn paces(texts: usize) -> Vec<Pace> {
    let device = Device::Cpu;
    let pace = |slots, stride, refill_from, bucket, record| Pace {
        device,
        slots,
        stride,
        refill_from,
        bucket,
        record,
    };
    vec![
        Pace::of(device, texts),
        Pace::of(device, 3),
        pace(1, 1, 1, 1, false),
        pace(3, 5, 2, 16, false),
        pace(4, 8, 1, 64, true),
        pace(texts + 2, 7, 9, 8, true),
    ]
}

#[test]
fn a_text_is_the_same_whatever_is_written_beside_it_and_whenever_its_turn_comes() {
    let mut models = 0;
    for tiny in Tiny::writers() {
        let model = tiny.load(&cpu());
        let generator = model.text_generator().unwrap();
        if generator.tokens().decoder_start.is_some() {
            continue;
        }
        let prompts = prompts(&tiny);
        let prompts: Vec<&[i64]> = prompts.iter().map(Vec::as_slice).collect();
        let numbers: Vec<u64> = (0..prompts.len() as u64).map(|n| n + 7).collect();
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap() as i64;
        let greedy = GenerationConfig { max_new_tokens: 14, ..Default::default() };
        let first = alone(generator, &prompts, &numbers, &greedy);
        // Ends that come at different places in different texts, of some not at all.
        let middle = |text: &Vec<i64>| text.get(text.len() / 2).copied();
        let further_eos = first.iter().take(2).filter_map(middle).collect();
        let greedy = GenerationConfig { further_eos, ..greedy };
        let ruled = GenerationConfig {
            repetition_penalty: 1.3,
            no_repeat_ngram_size: 3,
            min_new_tokens: 4,
            ..greedy.clone()
        };
        let drawn = GenerationConfig { do_sample: true, top_k: 20, seed: 5, ..greedy.clone() };
        // What a token is drawn by is beside the point of most paces.
        let all = paces(prompts.len());
        let odd = [all[3], all[5]];
        for (config, paces) in [(greedy, &all[..]), (ruled, &odd), (drawn, &odd)] {
            let mut expected: Option<Vec<Vec<i64>>> = None;
            for &pace in paces {
                let writer = ContinuousWriter::new(generator, &config, pace, longest).unwrap();
                let Some(mut writer) = writer else { break };
                models += 1;
                let expected =
                    expected.get_or_insert_with(|| alone(generator, &prompts, &numbers, &config));
                // And again, in slots that others were in.
                for _ in 0..2 {
                    let [told, whole] = written(&mut writer, &prompts, &numbers);
                    assert_eq!(whole, *expected, "{}, {config:?}, {pace:?}", tiny.name());
                    assert_eq!(told, whole);
                }
            }
        }
    }
    assert!(models > 15 * (6 + 2 + 2), "nearly all decoders have slots: {models}");
}

#[test]
fn what_turns_by_a_text_s_length_and_what_reads_a_source_are_written_in_step() {
    let config = GenerationConfig::default();
    let pace = Pace::of(Device::Cpu, 2);
    for (name, slots) in [("llama", true), ("llama_dynamic", false), ("bart", false)] {
        let model = Tiny::of(&format!("writers/{name}")).load(&cpu());
        let short = GenerationConfig { max_new_tokens: 4, ..config.clone() };
        let generator = model.text_generator().unwrap();
        let writer = ContinuousWriter::new(generator, &short, pace, 5).unwrap();
        assert_eq!(writer.is_some(), slots, "{name}");
        let beams = GenerationConfig { num_beams: 2, ..short.clone() };
        assert!(ContinuousWriter::new(generator, &beams, pace, 5).unwrap().is_none(), "{name}");
    }
}

#[test]
fn a_prompt_without_room_is_told() {
    let model = Tiny::of("writers/llama").load(&cpu());
    let generator = model.text_generator().unwrap();
    let config = GenerationConfig { max_new_tokens: 4, ..Default::default() };
    let pace = Pace::of(Device::Cpu, 2);
    let mut writer = ContinuousWriter::new(generator, &config, pace, 3).unwrap().unwrap();
    for prompt in [&[][..], &[5, 6, 7, 8]] {
        let told = writer.write(&[&[5], prompt], &[0, 1], &mut |_| ControlFlow::Continue(()));
        let words = told.unwrap_err().to_string();
        assert!(words.contains("where 1 to 3 are read"), "{words}");
    }
    let most = model.about().max_positions;
    let words = ContinuousWriter::new(generator, &config, pace, most).err().unwrap().to_string();
    assert!(words.contains("are more than the model's"), "{words}");
}
