//! Schedules and samplers against diffusers: what `tests/goldens/schedule.py` wrote.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use waft_host::schedule::{Ddim, MAX_HISTORY, ScheduleError, SchedulerConfig, Solver, Step, StepRequest, history};
use waft_tests::golden;

/// Samples have this many elements.
const ELEMENTS: usize = 4;

fn goldens(name: &str) -> Value {
    let text = std::fs::read_to_string(golden(name)).expect("golden");
    serde_json::from_str(&text).expect("JSON")
}

fn rows<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().expect("a list")
}

fn solver(row: &Value) -> Solver {
    let name = row["solver"].as_str().expect("text");
    match Solver::ALL.iter().copied().find(|solver| solver.name() == name).expect("a solver") {
        Solver::Ddim(_) => Solver::Ddim(Ddim {
            eta: row["eta"].as_f64().unwrap_or(0.0),
            use_clipped_model_output: row["use_clipped_model_output"] == true,
        }),
        other => other,
    }
}

fn integers(value: &Value) -> Vec<i64> {
    value.as_array().expect("a list").iter().map(|v| v.as_i64().expect("an integer")).collect()
}

fn reals(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

/// The steps that a row asks for, from its configuration as text.
fn steps(row: &Value) -> Result<Vec<Step>, ScheduleError> {
    let config = SchedulerConfig::from_json(row["config"].as_str().expect("text"))?;
    let request = match &row["steps"] {
        Value::Number(n) => StepRequest::Count(n.as_u64().expect("a count") as usize),
        Value::Object(given) => StepRequest::Sigmas(reals(&given["sigmas"])),
        list => StepRequest::Timesteps(integers(list)),
    };
    solver(row).steps_of(&config, &request)
}

/// The k-th of the sequence that the goldens were made from.
fn number(k: usize) -> f64 {
    (k as u64 * 2_654_435_761 % (1 << 32)) as f64 / 2f64.powi(31) - 1.0
}

/// The sample after each step.
fn trajectory(steps: &[Step]) -> Vec<[f64; ELEMENTS]> {
    let mut x: [f64; ELEMENTS] = std::array::from_fn(|i| steps[0].level.start * 1.5 * number(i));
    let mut past = [[0.0; ELEMENTS]; MAX_HISTORY];
    let mut samples = vec![];
    for (index, step) in steps.iter().enumerate() {
        let given = |which: usize, i: usize| number(ELEMENTS * (1 + 2 * index + which) + i);
        let mut clean: [f64; ELEMENTS] = std::array::from_fn(|i| step.clean(x[i], given(0, i)));
        if let Some(thresholding) = step.thresholding {
            thresholding.apply(&mut clean);
        }
        let noise = |i: usize| step.varied(given(1, i), number(10_000 + ELEMENTS * index + i));
        x = std::array::from_fn(|i| step.next(x[i], given(0, i), noise(i), clean[i], past.map(|h| h[i])));
        past = [clean, past[0]];
        samples.push(x);
    }
    samples
}

fn relative_error(found: &[f64], expected: &Value) -> f64 {
    let expected: Vec<f64> = expected.as_array().expect("a list").iter().map(|v| v.as_f64().expect("real")).collect();
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    worst / expected.iter().map(|b| b.abs()).fold(1e-30, f64::max)
}

/// Holds steps against a row: the same timesteps, the same sample after each.
fn check(row: &Value, steps: &[Step], bound: f64) {
    let expected = reals(&row["timesteps"]);
    assert_eq!(steps.len(), expected.len(), "{row}");
    for (step, expected) in steps.iter().zip(expected) {
        // Those that follow from logarithms are as good as the platform's.
        assert!(
            (step.timestep - expected).abs() <= 1e-6 * expected.abs().max(1.0),
            "{}, not {expected} in {row}",
            step.timestep
        );
    }
    let samples = trajectory(steps);
    for (index, (found, expected)) in samples.iter().zip(rows(row, "samples")).enumerate() {
        let error = relative_error(found, expected);
        assert!(error <= bound, "step {index} of {row}: relative error {error:e}");
    }
}

#[test]
fn every_list_of_timesteps_is_that_of_diffusers() {
    for row in goldens("schedule_timesteps.json").as_array().expect("a list") {
        let solver = solver(row);
        let mut config: Value = serde_json::from_str(row["config"].as_str().expect("text")).expect("JSON");
        config["_class_name"] = solver.class_name().into();
        let config = SchedulerConfig::from_json(&config.to_string()).expect("a configuration");
        if let Some(ends) = row["ends"].as_array() {
            for (n, ends) in (1..).zip(ends) {
                let steps = solver.steps(&config, n).unwrap_or_else(|error| panic!("{n} of {row}: {error}"));
                let list: Vec<f64> = steps.iter().map(|step| step.timestep).collect();
                for (found, expected) in [list[0], list[n - 1], list.iter().sum()].into_iter().zip(reals(ends)) {
                    let bound = 1e-6 * n as f64 * expected.abs().max(1.0);
                    assert!((found - expected).abs() <= bound, "{n} of {row}: {found}, not {expected}");
                }
                assert_eq!(list.len(), n);
            }
            assert_eq!(row["counts"], ends.len());
            continue;
        }
        let (mut text, mut refused) = (String::new(), vec![]);
        for n in 1..=row["counts"].as_u64().expect("a count") as usize {
            let Ok(mut steps) = solver.steps(&config, n) else {
                refused.push(n as i64);
                continue;
            };
            if solver == Solver::Heun {
                // Each but the first twice, the second call at the end of one step and the first of the next.
                steps = steps.into_iter().step_by(2).collect();
            }
            if solver == Solver::DdimInverse {
                steps.reverse();
            }
            let list: Vec<f32> = steps.iter().map(|step| step.timestep as f32).collect();
            if let Some(spelled) = row["lists"].get(n.to_string()) {
                let spelled: Vec<f32> = reals(spelled).into_iter().map(|timestep| timestep as f32).collect();
                assert_eq!(list, spelled, "{n} of {row}");
            }
            let list: Vec<String> = list.iter().map(|timestep| timestep.to_bits().to_string()).collect();
            text += &format!("{n}: {}\n", list.join(","));
        }
        assert_eq!(refused, integers(&row["refused"]), "{row}");
        let digest: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, row["sha256"].as_str().expect("text"), "{row}");
    }
}

#[test]
fn every_solver_steps_as_diffusers_does() {
    let mut longest = 0;
    let mut refused = 0;
    for row in rows(&goldens("schedule_steps.json"), "random") {
        match (steps(row), row.get("refused")) {
            (Ok(steps), None) => {
                check(row, &steps, 1e-6);
                longest = longest.max(history(&steps));
            }
            (Err(_), Some(_)) => refused += 1,
            (Ok(_), Some(_)) => panic!("diffusers has no finite samples for {row}"),
            (Err(error), None) => panic!("{row}: {error}"),
        }
    }
    assert_eq!(longest, 2, "the third order looks back on two samples");
    assert!(refused > 0, "some have no finite samples");
}

#[test]
fn every_solver_has_steps_of_diffusers() {
    let goldens = goldens("schedule_steps.json");
    let rows: Vec<&Value> = ["random", "sigma", "inverse"].iter().flat_map(|name| rows(&goldens, name)).collect();
    for solver in Solver::ALL {
        let is_held = rows.iter().any(|row| row["solver"] == solver.name() && row.get("refused").is_none());
        assert!(is_held, "tests/goldens/schedule.py has no steps of {}", solver.name());
    }
}

#[test]
fn samplers_in_the_noise_level_step_as_diffusers_does() {
    let mut seen = BTreeSet::new();
    for row in rows(&goldens("schedule_steps.json"), "sigma") {
        match (steps(row), row.get("refused")) {
            (Ok(steps), None) => {
                // Heun's slopes at low noise lose digits in diffusers.
                check(row, &steps, 1e-5);
                assert!(history(&steps) <= MAX_HISTORY);
                seen.insert(solver(row).name());
            }
            (Err(_), Some(_)) => {}
            (Ok(_), Some(refused)) => panic!("diffusers refuses {row}: {refused}"),
            // A device keeps two clean samples, UniPC of third order looks back on three.
            (Err(error @ ScheduleError::History { .. }), None) => {
                assert!(error.to_string().contains("solver_order 2"), "{error}");
                assert!(row["config"].as_str().expect("text").contains("\"solver_order\": 3"), "{row}");
            }
            (Err(error), None) => panic!("{row}: {error}"),
        }
    }
    assert_eq!(seen.len(), 9, "{seen:?}");
}

#[test]
fn ddim_backwards_steps_as_diffusers_does() {
    let goldens = goldens("schedule_steps.json");
    let mut compared = 0;
    for row in rows(&goldens, "inverse") {
        match (steps(row), row.get("refused")) {
            (Ok(steps), None) => {
                check(row, &steps, 1e-6);
                let level = steps[0].level;
                assert_eq!((level.signal, level.noise), (1.0, 0.0), "it starts from a picture");
                assert!(steps[1..].iter().all(|step| step.level.noise > 0.0));
                compared += 1;
            }
            (Err(_), Some(_)) => {}
            (Ok(_), Some(refused)) => panic!("diffusers refuses {row}: {refused}"),
            (Err(error), None) => panic!("{row}: {error}"),
        }
    }
    assert!(compared > 20, "{compared}");
}

#[test]
fn thresholds_are_those_of_diffusers() {
    let goldens = goldens("schedule_steps.json");
    let mut seen = BTreeSet::new();
    for row in rows(&goldens, "threshold") {
        match (steps(row), row.get("refused")) {
            (Ok(steps), None) => {
                check(row, &steps, 1e-6);
                if steps[0].thresholding.is_some() {
                    seen.insert(solver(row).name());
                }
            }
            (Err(_), Some(_)) => {}
            (Ok(_), Some(refused)) => panic!("diffusers refuses {row}: {refused}"),
            (Err(error), None) => panic!("{row}: {error}"),
        }
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
}

#[test]
fn learned_variances_scale_noise_as_diffusers_does() {
    for row in rows(&goldens("learned_variance.json"), "steps") {
        check(row, &steps(row).expect("steps"), 1e-6);
    }
}

#[test]
fn lists_that_somebody_wrote_are_stepped_as_diffusers_does() {
    for row in rows(&goldens("schedule_steps.json"), "lists") {
        check(row, &steps(row).unwrap_or_else(|error| panic!("{row}: {error}")), 1e-6);
    }
}

#[test]
fn null_means_what_diffusers_makes_of_it() {
    let goldens = goldens("schedule_steps.json");
    for row in rows(&goldens, "null") {
        let field = row["null"].as_str().expect("text");
        match (steps(row), row.get("refused")) {
            (Ok(steps), None) => check(row, &steps, 1e-6),
            (Err(error), Some(_)) => assert!(error.to_string().contains(field), "{row}: {error}"),
            (Err(error), None) => panic!("{row}: {error}"),
            (Ok(_), Some(_)) => panic!("diffusers refuses {row}"),
        }
    }
}

/// DDIM without noise and clipping is DPM-Solver++ of first order (Lu et al., 2022), whatever the list.
#[test]
fn ddim_of_a_list_is_the_first_order_of_dpm_solver() {
    for prediction in ["epsilon", "sample", "v_prediction"] {
        let config = json!({ "solver_order": 1, "clip_sample": false, "prediction_type": prediction });
        let config = SchedulerConfig::from_json(&config.to_string()).expect("a configuration");
        let list = [999, 850, 736, 645, 545, 343, 124, 24];
        let ddim = Solver::Ddim(Ddim::default()).steps_at(&config, &list).expect("steps");
        let dpm_solver = Solver::DpmSolver.steps_at(&config, &list).expect("steps");
        assert_eq!((history(&ddim), history(&dpm_solver)), (0, 0));
        for (a, b) in trajectory(&ddim).iter().zip(trajectory(&dpm_solver)) {
            for (a, b) in a.iter().zip(b) {
                assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{prediction}: {a} and {b}");
            }
        }
    }
}

/// Where a step of DDIM leads to the next entry anyway, the list alone gives the same steps.
#[test]
fn a_list_of_ddim_gives_the_steps_of_its_count() {
    for spacing in ["leading", "trailing"] {
        let config = json!({ "timestep_spacing": spacing });
        let config = SchedulerConfig::from_json(&config.to_string()).expect("a configuration");
        let solver = Solver::Ddim(Ddim { eta: 0.5, use_clipped_model_output: true });
        let expected = solver.steps(&config, 10).expect("steps");
        let list = config.timesteps(10).expect("a list");
        let found = solver.steps_at(&config, &list).expect("steps");
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn lists_that_are_none_are_refused_with_the_entry() {
    let config = SchedulerConfig::default();
    let cases: [(&[i64], &str); 6] = [
        (&[], "empty"),
        (&[1000], "1000"),
        (&[500, -1], "-1"),
        (&[500, 500], "500 follows 500"),
        (&[500, 10, 20], "20 follows 10"),
        (&[i64::MAX, i64::MIN], "9223372036854775807"),
    ];
    for solver in [Solver::Ddim(Ddim::default()), Solver::Ddpm, Solver::DpmSolver] {
        for (list, expected) in cases {
            let error = solver.steps_at(&config, list).expect_err("refused").to_string();
            assert!(error.contains(expected), "{list:?}: {error}");
        }
        for n in [0, 1001, usize::MAX] {
            assert!(solver.steps(&config, n).is_err(), "{n} steps");
        }
    }
}

#[test]
fn fields_that_change_the_result_are_named_with_their_value() {
    let everywhere = [
        (json!({ "sigmas": [1.0, 0.5] }), "sigmas = [1.0,0.5]"),
        (json!({ "a_field_of_tomorrow": 1 }), "a_field_of_tomorrow = 1"),
        (json!({ "prediction_type": "flow_prediction" }), "prediction_type = \"flow_prediction\""),
        (json!({ "beta_schedule": "sigmoid" }), "beta_schedule = \"sigmoid\""),
        (json!({ "beta_start": 0 }), "beta_start = 0"),
        (json!({ "beta_start": 1 }), "beta_start = 1"),
        (json!({ "beta_end": 1.5 }), "beta_end = 1.5"),
        (json!({ "clip_sample": 1 }), "clip_sample = 1"),
        (json!({ "clip_sample_range": -1 }), "clip_sample_range = -1"),
        (json!({ "thresholding": true, "sample_max_value": 0 }), "sample_max_value = 0"),
        (json!({ "thresholding": true, "dynamic_thresholding_ratio": 1.1 }), "dynamic_thresholding_ratio = 1.1"),
        (json!({ "steps_offset": -1 }), "steps_offset = -1"),
        (json!({ "num_train_timesteps": 0 }), "num_train_timesteps = 0"),
        (json!({ "num_train_timesteps": 1e9 }), "num_train_timesteps = 1000000000"),
        (json!({ "trained_betas": [0.1, 0.2] }), "trained_betas = 2 values"),
        (json!({ "trained_betas": [0.0, 0.2], "num_train_timesteps": 2 }), "trained_betas = 0"),
        (json!({ "trained_betas": [0.1, 1.0], "num_train_timesteps": 2 }), "trained_betas = 1"),
        (json!({ "trained_betas": "many" }), "trained_betas = \"many\""),
        (json!({ "_class_name": "EDMDPMSolverMultistepScheduler" }), "EDMDPMSolverMultistepScheduler"),
        (json!({ "_class_name": null }), "_class_name = null"),
    ];
    for (fields, expected) in everywhere {
        let error = SchedulerConfig::from_json(&fields.to_string()).expect_err("refused").to_string();
        assert!(error.contains(expected), "{fields}: {error}");
    }
    let (ddim, ddpm, dpm_solver) = (Solver::Ddim(Ddim::default()), Solver::Ddpm, Solver::DpmSolver);
    let (euler, ancestral, heun) = (Solver::Euler, Solver::EulerAncestral, Solver::Heun);
    let by_solver = [
        (ddim, json!({ "use_beta_sigmas": true }), "use_beta_sigmas = true"),
        (dpm_solver, json!({ "use_flow_sigmas": true }), "use_flow_sigmas = true"),
        (Solver::UniPc, json!({ "use_dynamic_shifting": true }), "use_dynamic_shifting = true"),
        (dpm_solver, json!({ "sigma_min": 0.002 }), "sigma_min = 0.002"),
        (heun, json!({ "sigma_max": 80.0 }), "sigma_max = 80.0"),
        (ddpm, json!({ "timestep_type": "continuous" }), "timestep_type = \"continuous\""),
        (ancestral, json!({ "interpolation_type": "log_linear" }), "interpolation_type = \"log_linear\""),
        (ancestral, json!({ "final_sigmas_type": "sigma_min" }), "final_sigmas_type = \"sigma_min\""),
        (ancestral, json!({ "prediction_type": "sample" }), "prediction_type = sample"),
        (euler, json!({ "thresholding": true }), "thresholding = true"),
        (euler, json!({ "use_karras_sigmas": true, "sigma_max": -1 }), "sigma_max = -1"),
        (euler, json!({ "use_karras_sigmas": true, "sigma_max": 0 }), "sigma_max = 0"),
        (heun, json!({ "rescale_betas_zero_snr": true }), "rescale_betas_zero_snr = true"),
        (Solver::Lcm, json!({ "original_inference_steps": 0 }), "original_inference_steps = 0"),
        (Solver::UniPc, json!({ "solver_p": {} }), "solver_p"),
        (Solver::EdmEuler, json!({}), "_class_name = DDIMScheduler"),
        (Solver::Consistency, json!({ "_class_name": "EDMEulerScheduler" }), "_class_name = EDMEulerScheduler"),
        (Solver::FlowMatchEuler, json!({ "_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 0 }), "shift = 0"),
        (
            Solver::FlowMatchEuler,
            json!({ "_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": true }),
            "use_dynamic_shifting = true",
        ),
        (
            Solver::Consistency,
            json!({ "_class_name": "CMStochasticIterativeScheduler", "sigma_min": 90 }),
            "sigma_min = 90",
        ),
        (ddim, json!({ "use_karras_sigmas": true }), "use_karras_sigmas"),
        (ddim, json!({ "shift": 3.0 }), "shift = 3.0"),
        (ddim, json!({ "timestep_type": "linear" }), "timestep_type = \"linear\""),
        (ddim, json!({ "interpolation_type": 1 }), "interpolation_type = 1"),
        (ddpm, json!({ "use_exponential_sigmas": true }), "use_exponential_sigmas"),
        (ddpm, json!({ "variance_type": "learned" }), "variance_type = \"learned\""),
        (ddpm, json!({ "variance_type": "fixed_large_log" }), "variance_type = \"fixed_large_log\""),
        (dpm_solver, json!({ "variance_type": "large" }), "variance_type = \"large\""),
        (dpm_solver, json!({ "solver_order": 4 }), "solver_order = 4"),
        (dpm_solver, json!({ "algorithm_type": "dpmsolver" }), "algorithm_type = \"dpmsolver\""),
        (dpm_solver, json!({ "use_karras_sigmas": true, "use_lu_lambdas": true }), "use_lu_lambdas"),
        (dpm_solver, json!({ "lambda_min_clipped": 100 }), "lambda_min_clipped = 100"),
    ];
    for (solver, fields, expected) in by_solver {
        let config = SchedulerConfig::from_json(&fields.to_string()).expect("another solver's field");
        let error = solver.steps(&config, 10).expect_err("refused").to_string();
        assert!(error.contains(expected), "{fields}: {error}");
    }
    for neutral in [
        json!({ "shift": 1.0, "use_karras_sigmas": false, "sigma_max": null }),
        json!({ "final_sigmas_type": "zero", "interpolation_type": "linear", "timestep_type": "discrete" }),
    ] {
        let config = SchedulerConfig::from_json(&neutral.to_string()).expect("another solver's field");
        assert!(ddim.steps(&config, 10).is_ok(), "{neutral} changes nothing");
    }
    let karras = SchedulerConfig::from_json(r#"{"use_karras_sigmas": true}"#).expect("a configuration");
    assert!(dpm_solver.steps(&karras, 10).is_ok());
    assert!(dpm_solver.steps_at(&karras, &[999, 500]).is_err(), "a list has the noise levels of its timesteps");
}

#[test]
fn without_signal_there_is_no_epsilon() {
    let config = r#"{"rescale_betas_zero_snr": true, "timestep_spacing": "trailing", "prediction_type": "TYPE"}"#;
    for (prediction, is_possible) in [("epsilon", false), ("sample", true), ("v_prediction", true)] {
        let config = SchedulerConfig::from_json(&config.replace("TYPE", prediction)).expect("a configuration");
        for solver in [Solver::Ddim(Ddim::default()), Solver::Ddpm] {
            let steps = solver.steps(&config, 10);
            assert_eq!(steps.is_ok(), is_possible, "{prediction}: {steps:?}");
            assert!(steps.map_or_else(|error| error.to_string().contains("timestep 999"), |_| true));
        }
    }
}

#[test]
fn a_checkpoint_is_sampled_with_the_solver_that_it_was_saved_with() {
    let of = |class: &str| {
        let config = SchedulerConfig::from_json(&json!({ "_class_name": class }).to_string()).expect("a configuration");
        Solver::of(&config)
    };
    assert_eq!(of("DDIMScheduler"), Some(Solver::Ddim(Ddim::default())));
    assert_eq!(of("DDPMScheduler"), Some(Solver::Ddpm));
    assert_eq!(of("DPMSolverMultistepScheduler"), Some(Solver::DpmSolver));
    for &solver in Solver::ALL {
        assert_eq!(of(solver.class_name()), Some(solver));
    }
    assert_eq!(of("PNDMScheduler"), None);
}
