//! Several processes that compute one thing: this test's own program, started once for each rank.

use aflora_cuda::{Graph, Place, Pool, World, WorldError};
use std::env;
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

const RANK: &str = "AFLORA_TEST_RANK";

/// A port that nobody has now.
fn port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Starts the test `name` of this program as each of these ranks of a world of `size`.
fn start(name: &str, ranks: &[usize], size: usize, timeout: Duration) -> Vec<Child> {
    let port = port();
    let one = |rank: &usize| {
        Command::new(env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(RANK, format!("{rank} {size} {port} {}", timeout.as_millis()))
            .env("OMP_NUM_THREADS", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    ranks.iter().map(one).collect()
}

fn outputs(children: Vec<Child>) -> Vec<Output> {
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn all_good(children: Vec<Child>) {
    for (rank, output) in outputs(children).iter().enumerate() {
        assert!(output.status.success(), "rank {rank}: {}", words(output));
    }
}

/// This process's place, where it was started as a rank.
fn joined() -> Option<Result<World, WorldError>> {
    let said = env::var(RANK).ok()?;
    let numbers: Vec<u64> = said.split(' ').map(|n| n.parse().unwrap()).collect();
    let place = Place {
        rank: numbers[0] as usize,
        size: numbers[1] as usize,
        local: None,
        host: "127.0.0.1".into(),
        port: numbers[2] as u16,
        served: false,
        name: "test".into(),
    };
    let timeout = Duration::from_millis(numbers[3]);
    Some(World::join(&place, timeout, |lost| {
        eprintln!("ended: {lost}");
        std::process::exit(3);
    }))
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_world_of_one_is_nothing() {
    let world = World::alone();
    assert_eq!((world.rank(), world.size(), world.local()), (0, 1, (0, 1)));
    let t = Tensor::from_slice(&[1.5f32]);
    world.all_reduce(&t).unwrap();
    world.broadcast(&t, 0).unwrap();
    assert_eq!(t.double_value(&[0]), 1.5);
    assert_eq!(world.gather(b"ab").unwrap(), [b"ab"]);
    assert_eq!(world.broadcast_bytes(vec![1], 0).unwrap(), [1]);
    assert_eq!(world.share(&[1, 2, 3]), [1, 2, 3]);
    world.leave().unwrap();
}

#[test]
fn ranks_add_up_and_hand_round_and_end_with_the_same_bits() {
    let Some(world) = joined() else {
        all_good(start(
            "ranks_add_up_and_hand_round_and_end_with_the_same_bits",
            &[0, 1, 2],
            3,
            LONG,
        ));
        return all_good(start(
            "ranks_add_up_and_hand_round_and_end_with_the_same_bits",
            &[0, 1],
            2,
            LONG,
        ));
    };
    let world = world.unwrap();
    let (rank, size) = (world.rank(), world.size());
    assert_eq!(world.local(), (rank, size), "all on this machine");
    tch::manual_seed(rank as i64);
    for n in [1, 7, 40_000] {
        let t = Tensor::randn([n], (Kind::Float, Device::Cpu));
        let bytes = |t: &Tensor| {
            let mut bytes = vec![0u8; 4 * n as usize];
            t.view_dtype(Kind::Uint8).copy_data_u8(&mut bytes, 4 * n as usize);
            bytes
        };
        let given = world.gather(&bytes(&t)).unwrap();
        assert_eq!(given[rank], bytes(&t));
        world.all_reduce(&t).unwrap();
        let sums = world.gather(&bytes(&t)).unwrap();
        assert!(sums.iter().all(|sum| *sum == sums[0]), "equal to the bit");
        let number = |bytes: &[u8]| f32::from_le_bytes(*bytes.last_chunk().unwrap());
        let expected: f32 = given.iter().map(|bytes| number(bytes)).sum();
        assert!((number(&sums[0]) - expected).abs() < 1e-5, "{n}");
    }
    let t = Tensor::from_slice(&[rank as i64 + 5]);
    world.broadcast(&t, size - 1).unwrap();
    assert_eq!(t.int64_value(&[0]), size as i64 + 4);
    let said = world.gather(&vec![rank as u8; 3 * rank]).unwrap();
    assert!(said.iter().enumerate().all(|(of, bytes)| *bytes == vec![of as u8; 3 * of]));
    let told = world.broadcast_bytes(vec![rank as u8; 3], 1).unwrap();
    assert_eq!(told, [1, 1, 1]);
    let mut rows: Vec<usize> = Vec::new();
    for share in world.gather(&world.share(&[0u8, 1, 2, 3, 4, 5, 6])).unwrap() {
        rows.extend(share.iter().map(|row| *row as usize));
    }
    rows.sort_unstable();
    assert_eq!(rows, [0, 1, 2, 3, 4, 5, 6]);
    world.leave().unwrap();
}

#[test]
fn what_is_gathered_comes_beside_other_work_and_autograd_finds_it_unchanged() {
    const NAME: &str = "what_is_gathered_comes_beside_other_work_and_autograd_finds_it_unchanged";
    let Some(world) = joined() else { return all_good(start(NAME, &[0, 1, 2], 3, LONG)) };
    let world = world.unwrap();
    let rank = world.rank() as f64;
    let own = Tensor::full([2], rank + 1.0, (Kind::Float, Device::Cpu));
    let all = Tensor::zeros([6], (Kind::Float, Device::Cpu));
    let part = all.narrow(0, 2, 3);
    let x = Tensor::ones([3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let loss = (&x * &part).sum(Kind::Float);
    let coming = world.begin_gather(&own, &all).unwrap();
    // Something else goes on meanwhile.
    world.barrier().unwrap();
    coming.wait().unwrap();
    assert_eq!(all, Tensor::from_slice(&[1.0f32, 1.0, 2.0, 2.0, 3.0, 3.0]));
    loss.backward();
    assert_eq!(x.grad(), Tensor::from_slice(&[2.0f32, 2.0, 3.0]), "what came, as it is now");
    world.leave().unwrap();
}

#[test]
fn a_call_before_a_gradient_comes_before_it_and_fails_the_backward_pass_where_it_fails() {
    use aflora_cuda::ops::before_backward;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::sync::Arc;
    let (calls, good) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
    let (counted, said) = (calls.clone(), good.clone());
    let call = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        said.load(Ordering::Relaxed).then_some(()).ok_or_else(|| "rank 7 is lost".to_string())
    });
    let x = Tensor::from_slice(&[2.0f32, 3.0]).set_requires_grad(true);
    let made = || before_backward(&(&x * &x), call.clone()).unwrap();
    let y = made();
    assert_eq!((&y, calls.load(Ordering::Relaxed)), (&Tensor::from_slice(&[4.0f32, 9.0]), 0));
    // What follows may change it in its place.
    let mut z = made();
    z += 1.0;
    (y + z).sum(Kind::Float).backward();
    assert_eq!((x.grad(), calls.load(Ordering::Relaxed)), (Tensor::from_slice(&[8.0f32, 12.0]), 2));
    good.store(false, Ordering::Relaxed);
    let error = Tensor::f_run_backward(&[made().sum(Kind::Float)], &[&x], false, false);
    let words = error.unwrap_err().to_string();
    assert!(words.contains("rank 7 is lost"), "{words}");
    assert_eq!(Arc::strong_count(&call), 1, "freed with the graph");
}

#[test]
fn a_rank_that_dies_is_named_to_all_others_at_once() {
    let Some(world) = joined() else {
        let started = Instant::now();
        let mut children =
            start("a_rank_that_dies_is_named_to_all_others_at_once", &[0, 1, 2], 3, LONG);
        let died = outputs(vec![children.remove(1)]);
        assert_eq!(died[0].status.code(), Some(9));
        for output in outputs(children) {
            assert_eq!(output.status.code(), Some(0), "{}", words(&output));
        }
        assert!(started.elapsed() < LONG / 2);
        return;
    };
    let world = world.unwrap();
    world.barrier().unwrap();
    if world.rank() == 1 {
        std::process::exit(9);
    }
    let error = loop {
        if let Err(error) = world.barrier() {
            break error.to_string();
        }
    };
    assert!(error.starts_with("rank 1 died"), "{error}");
}

#[test]
fn a_rank_that_fails_tells_the_others_why() {
    let Some(world) = joined() else {
        return all_good(start("a_rank_that_fails_tells_the_others_why", &[0, 1, 2], 3, LONG));
    };
    let world = world.unwrap();
    world.barrier().unwrap();
    if world.rank() == 2 {
        return world.abort("the disk is full");
    }
    let error = world.barrier().unwrap_err().to_string();
    assert_eq!(error, "rank 2 failed: the disk is full");
}

#[test]
fn a_rank_that_hangs_is_named_within_the_timeout() {
    let Some(world) = joined() else {
        let timeout = Duration::from_millis(1500);
        let started = Instant::now();
        let children =
            start("a_rank_that_hangs_is_named_within_the_timeout", &[0, 1, 2], 3, timeout);
        // Those that wait are in libtorch's hands: the lifeline ends them, and the one that hangs.
        for output in outputs(children) {
            assert_eq!(output.status.code(), Some(3), "{}", words(&output));
            let told = "ended: rank 2 has kept the others waiting for 1.5 s";
            assert!(words(&output).contains(told), "{}", words(&output));
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        return;
    };
    let world = world.unwrap();
    world.barrier().unwrap();
    if world.rank() == 2 {
        std::thread::sleep(LONG);
    }
    let error = world.barrier().unwrap_err();
    panic!("it is ended before Gloo's own, longer time is over: {error}");
}

#[test]
fn a_rank_that_does_not_come_is_named() {
    let Some(world) = joined() else {
        let timeout = Duration::from_millis(1500);
        return all_good(start("a_rank_that_does_not_come_is_named", &[0, 1], 3, timeout));
    };
    let error = world.unwrap_err().to_string();
    assert!(error.contains("rank 2 did not come"), "{error}");
    assert!(error.contains("of 3 found no other at 127.0.0.1:"), "{error}");
}

/// By NCCL, eagerly and in a graph.
#[test]
fn gpus_add_up_and_what_they_add_up_can_be_recorded() {
    const NAME: &str = "gpus_add_up_and_what_they_add_up_can_be_recorded";
    // The other tests have made tensors here, behind which libtorch sees no GPU: those that are started
    // see them.
    let is_gpu = |name: &str| {
        let number = name.strip_prefix("nvidia");
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let devices = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let gpus = devices.filter(|d| d.file_name().to_str().is_some_and(is_gpu)).count();
    if gpus < 2 {
        // Written past the test runner, which shows nothing of a test that passes.
        let _ = writeln!(std::io::stderr(), "skipped, it needs two GPUs: {gpus} are here");
        return;
    }
    if env::var_os(RANK).is_some() {
        aflora_cuda::load().unwrap();
    }
    let Some(world) = joined() else { return all_good(start(NAME, &[0, 1], 2, LONG)) };
    let world = world.unwrap();
    let rank = world.rank();
    aflora_cuda::set_device(rank).unwrap();
    world.use_gpu(rank).unwrap();
    let gpu = Device::Cuda(rank);
    for kind in [Kind::Float, Kind::BFloat16, Kind::Int64] {
        let t = Tensor::full([451_872], rank as i64 + 1, (kind, gpu));
        world.all_reduce(&t).unwrap();
        assert!(bool::try_from(t.eq(3).all()).unwrap(), "{kind:?}");
        let t = Tensor::full([7], rank as i64, (kind, gpu));
        world.broadcast(&t, 1).unwrap();
        assert!(bool::try_from(t.eq(1).all()).unwrap(), "{kind:?}");
    }
    let own = Tensor::full([1000], rank as i64, (Kind::Uint8, gpu));
    let both = Tensor::full([2000], 7, (Kind::Uint8, gpu));
    let coming = world.begin_gather(&own, &both).unwrap();
    let beside = Tensor::ones([512, 512], (Kind::Float, gpu));
    let beside = beside.matmul(&beside);
    coming.wait().unwrap();
    for of in 0..2 {
        assert!(bool::try_from(both.narrow(0, 1000 * of, 1000).eq(of).all()).unwrap());
    }
    assert!(bool::try_from(beside.eq(512.0).all()).unwrap());
    let a = Tensor::ones([451_872], (Kind::Float, gpu));
    let mut b = a.zeros_like();
    let mut work = || {
        b.copy_(&a);
        let _ = b.g_mul_scalar_(rank as i64 + 1);
        world.all_reduce(&b).unwrap();
    };
    work();
    let (graph, ()) = Graph::capture(&Pool::new().unwrap(), work).unwrap();
    for _ in 0..10 {
        graph.replay().unwrap();
    }
    assert!(bool::try_from(b.eq(3.0).all()).unwrap());
    // What lies on the CPU goes on beside it.
    world.barrier().unwrap();
    world.leave().unwrap();
}
