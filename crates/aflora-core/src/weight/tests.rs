use super::*;
use crate::adapter::normal;
use std::collections::BTreeMap;

/// Those that a product takes as they are restored, and the one that it rounds its other operand for.
const RESTORED: [WeightFormat; 3] =
    [WeightFormat::Nf4, WeightFormat::Nf4Nested, WeightFormat::Int8];
const FORMATS: [WeightFormat; 4] =
    [WeightFormat::Nf4, WeightFormat::Nf4Nested, WeightFormat::Int8, WeightFormat::Fp8];

/// What bitsandbytes made; tests/fixtures/make_quantised.py.
fn golden() -> BTreeMap<String, Tensor> {
    let path = format!("{}/tests/fixtures/quantised.safetensors", env!("CARGO_MANIFEST_DIR"));
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

fn random(shape: &[i64], name: &str) -> Tensor {
    normal(shape, 0.05, 3, name)
}

/// A weight in the codes that bitsandbytes gave it.
fn nf4_of(golden: &BTreeMap<String, Tensor>, name: &str) -> QuantisedWeight {
    let tensor = |what: &str| golden[&format!("{name}.{what}")].shallow_clone();
    let size = tensor("weight").size();
    let scales = match golden.get(&format!("{name}.nested_absmax")) {
        None => Scales::Plain(tensor("absmax")),
        Some(nested) => Scales::Nested {
            codes: tensor("absmax"),
            map: tensor("nested_map"),
            scales: nested.shallow_clone(),
            offset: tensor("offset").double_value(&[0]),
            block: 256,
        },
    };
    let coding = Coding::Map { map: tensor("map"), block: 64, scales };
    QuantisedWeight::new(tensor("codes").view([-1]), coding, [size[0], size[1]]).unwrap()
}

#[test]
fn codes_are_restored_to_the_bit_as_bitsandbytes_restores_them() {
    let golden = golden();
    for name in ["small", "ragged", "wide"] {
        let weight = nf4_of(&golden, name);
        for (kind, what) in [(Kind::Float, "restored"), (Kind::BFloat16, "restored_bf16")] {
            if let Some(expected) = golden.get(&format!("{name}.{what}")) {
                assert!(weight.restore(kind).equal(expected), "{name} {what}");
                assert!(weight.composed(kind).equal(expected), "{name} {what}, composed");
            }
        }
    }
    for name in ["small", "ragged"] {
        let tensor = |what: &str| golden[&format!("{name}.{what}")].shallow_clone();
        let (codes, coding) =
            (tensor("int8"), Coding::Rows { scales: tensor("rows"), dynamic: false });
        let size = codes.size();
        let weight = QuantisedWeight::new(codes, coding, [size[0], size[1]]).unwrap();
        assert!(weight.restore(Kind::Float).equal(&tensor("restored_int8")), "{name}");
        assert!(weight.composed(Kind::Float).equal(&tensor("restored_int8")), "{name}, composed");
    }
}

#[test]
fn numbers_get_the_codes_that_bitsandbytes_gives_them() {
    let golden = golden();
    assert!(maps::dynamic(Device::Cpu).equal(&golden["dynamic_map"]));
    for name in ["small", "ragged", "wide"] {
        let tensor = |what: &str| golden[&format!("{name}.{what}")].shallow_clone();
        assert!(maps::nf4(Device::Cpu).equal(&tensor("map")));
        let format = match name {
            "wide" => WeightFormat::Nf4Nested,
            _ => WeightFormat::Nf4,
        };
        let weight = QuantisedWeight::quantise(&tensor("weight"), format).unwrap();
        assert!(weight.codes().equal(&tensor("codes").view([-1])), "{name}");
        let Coding::Map { scales, .. } = weight.coding() else { panic!("{name}: no map") };
        match scales {
            Scales::Plain(scales) => assert!(scales.equal(&tensor("absmax")), "{name}"),
            Scales::Nested { codes, scales, offset, .. } => {
                // Halfway between two codes, its kernel for CPUs rounds by another sum.
                let apart = (codes.to_kind(Kind::Int) - tensor("absmax").to_kind(Kind::Int)).abs();
                assert!(apart.max().int64_value(&[]) <= 1, "{name}");
                assert!(apart.sum(Kind::Int64).int64_value(&[]) <= 2, "{name}");
                assert!(scales.allclose(&tensor("nested_absmax"), 1e-6, 0.0, false), "{name}");
                assert!((offset - tensor("offset").double_value(&[0])).abs() < 1e-7, "{name}");
            }
        }
    }
    for name in ["small", "ragged"] {
        let tensor = |what: &str| golden[&format!("{name}.{what}")].shallow_clone();
        let weight = QuantisedWeight::quantise(&tensor("weight"), WeightFormat::Int8).unwrap();
        assert!(weight.codes().equal(&tensor("int8")), "{name}");
    }
}

#[test]
fn the_gradient_is_that_of_the_restored_weight_to_the_bit() {
    for format in RESTORED {
        let weight = QuantisedWeight::quantise(&random(&[96, 160], "w"), format).unwrap();
        let (bias, toward) = (random(&[96], "bias"), random(&[2, 5, 96], "toward"));
        for kind in [Kind::Float, Kind::BFloat16] {
            let dense = weight.restore(kind);
            let (bias, toward) = (bias.to_kind(kind), toward.to_kind(kind));
            let run = |forward: &dyn Fn(&Tensor) -> Tensor| {
                let x = random(&[2, 5, 160], "x").to_kind(kind).set_requires_grad(true);
                let y = forward(&x);
                let gradient =
                    Tensor::run_backward(&[(&y * &toward).sum(Kind::Float)], &[&x], false, false);
                (y, gradient[0].shallow_clone())
            };
            let (y, gradient) = run(&|x| weight.linear(x, Some(&bias)));
            let (expected, expected_gradient) = run(&|x| x.linear(&dense, Some(&bias)));
            assert_eq!(y.kind(), kind);
            assert!(y.equal(&expected), "{format:?} {kind:?}");
            assert!(gradient.equal(&expected_gradient), "{format:?} {kind:?}");
        }
    }
}

#[test]
fn a_bias_that_trains_has_its_gradient() {
    let weight = QuantisedWeight::quantise(&random(&[8, 64], "w"), WeightFormat::Nf4).unwrap();
    let bias = random(&[8], "bias").set_requires_grad(true);
    let x = random(&[3, 64], "x");
    let loss = (weight.linear(&x, Some(&bias)) * 2.0).sum(Kind::Float);
    let gradient = Tensor::run_backward(&[loss], &[&bias], false, false).remove(0);
    assert!(gradient.equal(&Tensor::full([8], 6.0, (Kind::Float, Device::Cpu))));
}

#[test]
fn all_threads_restore_what_one_does() {
    let weight = random(&[700, 300], "w");
    for format in FORMATS {
        let weight = QuantisedWeight::quantise(&weight, format).unwrap();
        for kind in [Kind::Float, Kind::BFloat16] {
            // No fallback: the loop that threads share.
            let restored = ops::restore(&weight.parts(), kind).unwrap();
            assert!(restored.equal(&weight.composed(kind)), "{format:?}");
        }
    }
}

#[test]
fn a_restored_weight_is_off_by_as_much_as_its_bits_allow() {
    let weight = random(&[256, 256], "w");
    for (format, most) in FORMATS.into_iter().zip([0.095, 0.096, 0.008, 0.027]) {
        let restored = QuantisedWeight::quantise(&weight, format).unwrap().restore(Kind::Float);
        let error = ((restored - &weight).norm() / weight.norm()).double_value(&[]);
        assert!(error < most && error > most / 2.0, "{format:?}: {error}");
    }
}

#[test]
fn the_bytes_of_a_format_are_those_that_its_tensors_take() {
    for (rows, columns) in [(64, 64), (5, 26), (300, 128)] {
        for format in FORMATS {
            let weight = QuantisedWeight::quantise(&random(&[rows, columns], "w"), format).unwrap();
            assert_eq!(weight.bytes(), format.bytes(rows, columns), "{format:?} {rows}×{columns}");
        }
    }
}

#[test]
fn zeros_stay_zeros_and_no_numbers_are_not_hidden() {
    for format in FORMATS {
        let zeros = Tensor::zeros([2, 128], (Kind::Float, Device::Cpu));
        let restored = QuantisedWeight::quantise(&zeros, format).unwrap().restore(Kind::Float);
        assert_eq!(restored.abs().max().double_value(&[]), 0.0, "{format:?}");
        let spoilt = random(&[2, 128], "w");
        let _ = spoilt.get(1).get(3).fill_(f64::NAN);
        let restored = QuantisedWeight::quantise(&spoilt, format).unwrap().restore(Kind::Float);
        assert!(restored.get(1).isnan().any().int64_value(&[]) == 1, "{format:?}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_no_weight() {
    let golden = golden();
    let tensor = |what: &str| golden[&format!("small.{what}")].shallow_clone();
    let of = |codes: Tensor, scales: Tensor, map: Tensor, block: i64| {
        let coding = Coding::Map { map, block, scales: Scales::Plain(scales) };
        QuantisedWeight::new(codes, coding, [24, 128])
    };
    let (codes, scales, map) = (tensor("codes"), tensor("absmax"), tensor("map"));
    let all = || (codes.shallow_clone(), scales.shallow_clone(), map.shallow_clone());
    let (c, s, m) = all();
    of(c, s, m, 64).unwrap();
    for (what, made) in [
        ("codes", of(codes.narrow(0, 0, 9), all().1, all().2, 64)),
        ("scales", of(all().0, scales.narrow(0, 0, 9), all().2, 64)),
        ("scales", of(all().0, scales.to_kind(Kind::Double), all().2, 64)),
        ("map", of(all().0, all().1, map.narrow(0, 0, 9), 64)),
        ("scales", of(all().0, all().1, all().2, 32)),
        ("block", of(all().0, all().1, all().2, 63)),
    ] {
        let error = made.unwrap_err().to_string();
        assert!(error.contains(what), "{what}: {error}");
    }
}

/// Each row of `x`, fp64, as e4m3 has it, and its scale, `[rows, 1]`: by libtorch's own conversion.
fn rounded(x: &Tensor) -> (Tensor, Tensor) {
    let scale = |row: i64| {
        let largest = x.get(row).abs().max().double_value(&[]);
        let mut scale = 1.0;
        while largest / scale > 448.0 {
            scale *= 2.0;
        }
        while largest > 0.0 && largest / scale * 2.0 <= 448.0 {
            scale /= 2.0;
        }
        scale
    };
    let scales: Vec<f64> = (0..x.size()[0]).map(scale).collect();
    let scales = Tensor::from_slice(&scales).unsqueeze(1);
    let codes = (x / &scales).to_kind(Kind::Float).to_kind(Kind::Float8e4m3fn);
    (codes.to_kind(Kind::Double) * &scales, scales)
}

#[test]
fn products_in_fp8_are_those_of_rounded_rows() {
    // Of rows far apart, so that their scales are.
    let spread =
        |shape: &[i64], name| random(shape, name) * (random(&[shape[0], 1], "rows") * 80.0).exp2();
    for (n, from, to) in [(10, 160, 96), (3, 30, 7), (1, 8, 16)] {
        let (w, bias) = (spread(&[to, from], "w"), random(&[to], "bias"));
        let weight = QuantisedWeight::quantise(&w, WeightFormat::Fp8).unwrap();
        let (whole, scales) = rounded(&w.to_kind(Kind::Double));
        for kind in [Kind::Float, Kind::BFloat16] {
            let what = format!("{n} × {from} → {to}, {kind:?}");
            assert!(weight.restore(kind).to_kind(Kind::Double).equal(&whole), "{what}");
            let wide = |t: &Tensor| t.to_kind(kind).to_kind(Kind::Double);
            let (x, toward) = (spread(&[n, from], "x"), spread(&[n, to], "toward"));
            let leaf = x.to_kind(kind).set_requires_grad(true);
            let y = weight.linear(&leaf, Some(&bias.to_kind(kind)));
            let product = (&y * toward.to_kind(kind)).sum(Kind::Float);
            let gradient = Tensor::run_backward(&[product], &[&leaf], false, false).remove(0);
            let expected = rounded(&wide(&x)).0.matmul(&whole.tr()) + wide(&bias);
            let folded = rounded(&(wide(&toward) * scales.tr())).0;
            let expected_gradient = folded.matmul(&(&whole / &scales));
            let most = if kind == Kind::Float { 1e-6 } else { 4e-3 };
            for (what, found, expected) in
                [("y", y, expected), ("its gradient", gradient, expected_gradient)]
            {
                let apart = (found.detach().to_kind(Kind::Double) - &expected).norm();
                let apart = (apart / expected.norm()).double_value(&[]);
                assert!(apart < most, "{what}: {apart:e}");
            }
        }
    }
}

#[test]
fn numbers_are_rounded_to_e4m3_as_libtorch_rounds_them() {
    // All of bf16's up to 448, beside which a row's scale is one: 63 and a 448 a row.
    let positive: Vec<i32> = (0..=0x43e0).map(|bits| bits << 16).collect();
    let negative = positive.iter().map(|bits| bits | i32::MIN);
    let mut bits: Vec<i32> = positive.iter().copied().chain(negative).collect();
    bits.resize(bits.len().next_multiple_of(63), 0);
    let numbers = Tensor::from_slice(&bits).view_dtype(Kind::Float).view([-1, 63]);
    let x = numbers.constant_pad_nd([1, 0]);
    let _ = x.narrow(1, 0, 1).fill_(448.0);
    let identity = Tensor::eye(64, (Kind::Float, Device::Cpu));
    let identity = QuantisedWeight::quantise(&identity, WeightFormat::Fp8).unwrap();
    let found = identity.linear(&x, None);
    assert!(found.equal(&x.to_kind(Kind::Float8e4m3fn).to_kind(Kind::Float)));
}

/// Each row of `x`, fp64, in 127ths of its largest magnitude.
fn in_127ths(x: &Tensor) -> Tensor {
    let step = x.abs().amax([1], true).clamp_min(1e-300) / 127.0;
    (x / &step).round() * step
}

#[test]
fn dynamic_products_in_int8_are_those_of_rows_in_whole_numbers() {
    let spread =
        |shape: &[i64], name| random(shape, name) * (random(&[shape[0], 1], "rows") * 80.0).exp2();
    for (n, from, to) in [(10, 160, 96), (3, 30, 7), (1, 8, 16), (300, 96, 65)] {
        let (w, bias) = (spread(&[to, from], "w"), random(&[to], "bias"));
        let weight = QuantisedWeight::quantise(&w, WeightFormat::Int8Dynamic).unwrap();
        assert_eq!(weight.format(), Some(WeightFormat::Int8Dynamic));
        let whole = weight.restore(Kind::Double);
        let Coding::Rows { scales, .. } = weight.coding() else { panic!("another coding") };
        let scales = scales.to_kind(Kind::Double).unsqueeze(1) / 127.0;
        for kind in [Kind::Float, Kind::BFloat16] {
            let what = format!("{n} × {from} → {to}, {kind:?}");
            let wide = |t: &Tensor| t.to_kind(kind).to_kind(Kind::Double);
            let (x, toward) = (spread(&[n, from], "x"), spread(&[n, to], "toward"));
            let leaf = x.to_kind(kind).set_requires_grad(true);
            let y = weight.linear(&leaf.view([1, n, from]), Some(&bias.to_kind(kind)));
            assert_eq!((y.size(), y.kind()), (vec![1, n, to], kind), "{what}");
            let product = (&y * toward.to_kind(kind)).sum(Kind::Float);
            let gradient = Tensor::run_backward(&[product], &[&leaf], false, false).remove(0);
            let expected = in_127ths(&wide(&x)).matmul(&whole.tr()) + wide(&bias);
            let expected_gradient =
                in_127ths(&(wide(&toward) * scales.tr())).matmul(&(&whole / &scales));
            let exact = [wide(&x).matmul(&whole.tr()) + wide(&bias), wide(&toward).matmul(&whole)];
            // A number in the middle between two may go to either.
            let most = if kind == Kind::Float { 1e-4 } else { 4e-3 };
            for ((part, found, expected), exact) in
                [("y", y.view([n, to]), expected), ("its gradient", gradient, expected_gradient)]
                    .into_iter()
                    .zip(exact)
            {
                let apart = |from: &Tensor, expected: &Tensor| {
                    let apart = (from.detach().to_kind(Kind::Double) - expected).norm();
                    (apart / expected.norm()).double_value(&[])
                };
                let found_apart = apart(&found, &expected);
                assert!(found_apart < most, "{what}, {part}: {found_apart:e}");
                let rounding = apart(&expected, &exact);
                assert!((1e-5..3e-2).contains(&rounding), "{what}, {part}: {rounding:e}");
            }
        }
    }
}

#[test]
fn codes_that_somebody_stored_are_multiplied_as_is_asked_for() {
    let quantise = |format| QuantisedWeight::quantise(&random(&[8, 64], "w"), format).unwrap();
    let x = random(&[3, 64], "x");
    for (stored, asked) in [
        (WeightFormat::Int8, WeightFormat::Int8Dynamic),
        (WeightFormat::Int8Dynamic, WeightFormat::Int8),
    ] {
        let weight = quantise(stored).multiplied_as(asked);
        assert_eq!(weight.format(), Some(asked));
        assert!(weight.linear(&x, None).equal(&quantise(asked).linear(&x, None)));
        assert!(!weight.linear(&x, None).equal(&quantise(stored).linear(&x, None)));
    }
    assert_eq!(
        quantise(WeightFormat::Nf4).multiplied_as(WeightFormat::Int8Dynamic).format(),
        Some(WeightFormat::Nf4)
    );
}

#[test]
fn rows_of_zeros_and_the_smallest_numbers_have_dynamic_products() {
    let bias = random(&[8], "bias");
    let weight = QuantisedWeight::quantise(&random(&[8, 64], "w"), WeightFormat::Int8Dynamic);
    let weight = weight.unwrap();
    for number in [0.0, 1e-44, -1e-38] {
        let x = Tensor::full([2, 64], number, (Kind::Float, Device::Cpu));
        assert!(weight.linear(&x, Some(&bias)).equal(&bias.expand([2, 8], false)), "{number}");
    }
    let none = weight.linear(&Tensor::zeros([0, 64], (Kind::Float, Device::Cpu)), Some(&bias));
    assert_eq!(none.size(), [0, 8]);
}

#[test]
fn what_is_no_number_spoils_its_row_of_a_rounded_product_and_no_other() {
    for format in [WeightFormat::Fp8, WeightFormat::Int8Dynamic] {
        let weight = QuantisedWeight::quantise(&random(&[8, 64], "w"), format).unwrap();
        for spoils in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let x = random(&[3, 64], "x");
            let _ = x.get(1).get(7).fill_(spoils);
            let numbers = weight.linear(&x, None).isfinite().sum_dim_intlist(1, false, Kind::Int64);
            assert_eq!(Vec::<i64>::try_from(numbers).unwrap(), [8, 0, 8], "{format:?} {spoils}");
        }
    }
}
