//! How far counts and fields of schedules may go, and the noise levels that steps start from, against closed forms.

use serde_json::{Value, json};
use waft_host::schedule::{Ddim, Level, SchedulerConfig, Solver};

fn config(fields: &Value) -> SchedulerConfig {
    SchedulerConfig::from_json(&fields.to_string()).expect("a configuration")
}

/// A solver's own class, and fields.
fn of(solver: Solver, fields: &Value) -> SchedulerConfig {
    let mut fields = fields.clone();
    fields["_class_name"] = json!(solver.class_name());
    config(&fields)
}

/// √ᾱ and √(1−ᾱ) of linear betas from 0.0001 to 0.02, from their definition (Ho et al., 2020, arXiv:2006.11239).
fn variance_preserving(timestep: f64) -> Level {
    let beta = |t: u32| 0.0001 + (0.02 - 0.0001) * f64::from(t) / 999.0;
    let alpha: f64 = (0..=timestep as u32).map(|t| 1.0 - beta(t)).product();
    Level::new(alpha.sqrt(), (1.0 - alpha).sqrt())
}

#[track_caller]
fn assert_near(found: Level, expected: Level) {
    for (a, b) in [(found.signal, expected.signal), (found.noise, expected.noise), (found.start, expected.start)] {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{found:?}, not {expected:?}");
    }
}

/// What the sample before a step consists of: image-to-image starts from it.
#[test]
fn steps_start_from_the_noise_level_of_their_timestep() {
    let plain = config(&json!({}));
    for solver in [Solver::Ddim(Ddim::default()), Solver::Ddpm, Solver::DpmSolver, Solver::UniPc, Solver::Lcm] {
        // LCM's betas are others by default.
        let fields = json!({ "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear" });
        for step in solver.steps(&of(solver, &fields), 7).expect("steps") {
            assert_near(step.level, variance_preserving(step.timestep));
        }
    }
    // The network reads x/√(σ² + 1), where x has the signal 1 and the noise σ = √((1−ᾱ)/ᾱ): the same level.
    for solver in [Solver::Euler, Solver::EulerAncestral, Solver::Heun] {
        // Heun's betas are others by default.
        let fields = json!({ "timestep_spacing": "trailing", "beta_start": 0.0001, "beta_end": 0.02 });
        for step in solver.steps(&of(solver, &fields), 7).expect("steps") {
            assert_near(Level { start: 1.0, ..step.level }, variance_preserving(step.timestep));
        }
    }
    // Flow matching: (1 − σ)·x0 + σ·ε, and the network is told 1000·σ.
    for step in Solver::FlowMatchEuler.steps(&of(Solver::FlowMatchEuler, &json!({})), 7).expect("steps") {
        let sigma = step.timestep / 1000.0;
        assert_near(step.level, Level::new(1.0 - sigma, sigma));
    }
    // EDM: x0 + σ·ε over √(σ² + σ_data²); the network is told ln(σ)/4, a consistency model 250·ln(σ).
    for (solver, told, first) in
        [(Solver::EdmEuler, 0.25, (80.0f64 * 80.0 + 1.0).sqrt()), (Solver::Consistency, 250.0, 80.0)]
    {
        let steps = solver.steps(&of(solver, &json!({})), 5).expect("steps");
        for (index, step) in steps.iter().enumerate() {
            let sigma = (step.timestep / told).exp();
            let scale = (sigma * sigma + 0.25).sqrt();
            let start = if index == 0 { first / scale } else { 1.0 };
            assert_near(step.level, Level { signal: 1.0 / scale, noise: sigma / scale, start });
        }
    }
    // Backwards the first sample is a picture, and the others are what a step forwards would start from.
    let backwards = Solver::DdimInverse.steps(&plain, 10).expect("steps");
    assert_eq!(backwards[0].level, Level::new(1.0, 0.0));
    for pair in backwards.windows(2) {
        assert_near(pair[1].level, variance_preserving(pair[0].timestep));
    }
}

/// A list of DDIM backwards goes through the timesteps from the last to the first, as its count does.
#[test]
fn a_list_of_ddim_backwards_gives_the_steps_of_its_count() {
    let plain = config(&json!({ "timestep_spacing": "leading" }));
    let list = plain.timesteps(10).expect("a list");
    let expected = Solver::DdimInverse.steps(&plain, 10).expect("steps");
    let found = Solver::DdimInverse.steps_at(&plain, &list).expect("steps");
    assert_eq!(found, expected);
    assert_eq!(expected.len(), 10);
}

#[test]
fn there_are_no_more_steps_than_timesteps_of_training() {
    for solver in [Solver::EdmEuler, Solver::Consistency, Solver::FlowMatchEuler] {
        let config = of(solver, &json!({ "num_train_timesteps": 10 }));
        for (n, is_possible) in [(0, false), (1, true), (10, true), (11, false), (usize::MAX, false)] {
            let steps = solver.steps(&config, n);
            assert_eq!(steps.is_ok(), is_possible, "{n} steps: {steps:?}");
            assert!(steps.map_or_else(|error| error.to_string().contains("1 to 10"), |steps| steps.len() == n));
        }
    }
}

#[test]
fn counts_beyond_a_list_are_refused() {
    let lcm = of(Solver::Lcm, &json!({ "original_inference_steps": 10 }));
    for (n, is_possible) in [(0, false), (1, true), (10, true), (11, false)] {
        let steps = Solver::Lcm.steps(&lcm, n);
        assert_eq!(steps.is_ok(), is_possible, "{n} steps: {steps:?}");
    }
    // Levels spread over those of training, of which there may be one or two.
    for (train, timesteps) in [(1, &[0.0][..]), (2, &[1.0, 0.0])] {
        let spread = of(Solver::DpmSolver, &json!({ "num_train_timesteps": train, "use_karras_sigmas": true }));
        let steps = Solver::DpmSolver.steps(&spread, train).expect("steps");
        assert_eq!(steps.iter().map(|step| step.timestep).collect::<Vec<_>>(), timesteps);
        for n in [0, train + 1] {
            let error = Solver::DpmSolver.steps(&spread, n).expect_err("refused").to_string();
            assert!(error.contains(&format!("{n} steps")), "{error}");
        }
    }
}

/// UniPC through the timesteps of its own count takes its steps.
#[test]
fn a_list_of_unipc_gives_the_steps_of_its_count() {
    let plain = of(Solver::UniPc, &json!({}));
    let expected = Solver::UniPc.steps(&plain, 6).expect("steps");
    let list: Vec<i64> = expected.iter().map(|step| step.timestep as i64).collect();
    assert_eq!(Solver::UniPc.steps_at(&plain, &list).expect("steps"), expected);
    // Corrected, a step of third order looks back on three clean samples.
    let third = of(Solver::UniPc, &json!({ "solver_order": 3 }));
    let error = Solver::UniPc.steps(&third, 6).expect_err("refused").to_string();
    assert!(error.contains("looks back on 3 clean samples") && error.contains("solver_order 2"), "{error}");
}

/// Fields that have to be above 0, and no infinity, are refused with their value.
#[test]
fn positive_fields_are_positive() {
    let named = [
        (Solver::EdmEuler, ["sigma_min", "sigma_max", "sigma_data", "rho"].as_slice()),
        (Solver::Consistency, &["sigma_min", "sigma_max", "sigma_data", "rho"]),
        (Solver::FlowMatchEuler, &["shift"]),
    ];
    for (solver, fields) in named {
        for &field in fields {
            for value in [json!(0), json!(-1), json!("Infinity"), json!("NaN")] {
                let found = SchedulerConfig::from_json(
                    &json!({ "_class_name": solver.class_name(), field: value }).to_string(),
                );
                let error = match found {
                    Ok(config) => solver.steps(&config, 5).expect_err("refused"),
                    Err(error) => error,
                };
                assert!(error.to_string().contains(&format!("{field} = ")), "{field} of {value}: {error}");
            }
        }
    }
    let refused = |fields: Value| SchedulerConfig::from_json(&fields.to_string()).expect_err("refused").to_string();
    assert!(refused(json!({ "clip_sample_range": 0 })).contains("clip_sample_range = 0"));
    assert!(refused(json!({ "clip_sample_range": 1001 })).contains("clip_sample_range = 1001"));
    assert_eq!(config(&json!({ "clip_sample_range": 1000 })).clip(), Some(1000.0));
    // One noise level for all of training: every step gives the clean sample that the network says.
    let level = of(Solver::Consistency, &json!({ "sigma_min": 0.5, "sigma_max": 0.5 }));
    assert_eq!(Solver::Consistency.steps(&level, 3).expect("steps").len(), 3);
}

/// Three solvers have noise levels of their own; those of all others follow from β.
#[test]
fn solvers_take_over_what_means_the_same_noise_levels() {
    let own = [Solver::FlowMatchEuler, Solver::EdmEuler, Solver::Consistency];
    for class in Solver::ALL {
        let config = of(*class, &json!({}));
        for solver in Solver::ALL {
            let is_taken = solver == class || !own.contains(solver) && !own.contains(class);
            let error = solver.steps(&config, 3).err().map_or(String::new(), |error| error.to_string());
            let is_refused = error.contains("does not have the noise levels of this class");
            assert_eq!(is_refused, !is_taken, "{} of {}: {error}", solver.name(), class.name());
        }
    }
}

/// Euler's last noise level is where the last step ends, that of flow matching is where it starts.
#[test]
fn lists_of_noise_levels_have_a_least_length() {
    for (solver, least) in [(Solver::Euler, 2), (Solver::FlowMatchEuler, 1)] {
        let config = of(solver, &json!({}));
        let list = [0.75, 0.5, 0.25];
        for count in 0..=3 {
            let found = solver.steps_through(&config, &list[..count]);
            assert_eq!(found.map(|steps| steps.len()).ok(), (count >= least).then(|| count + 1 - least), "{count}");
        }
    }
}

/// A threshold is at least 1 and at most `sample_max_value`; where that is less, it is the threshold of every picture.
#[test]
fn a_largest_threshold_below_1_is_the_threshold() {
    let ddim = Solver::Ddim(Ddim::default());
    let thresholded = |limit: f64| {
        // Thresholds take the place of a bound.
        let fields = json!({ "thresholding": true, "sample_max_value": limit, "clip_sample": true });
        ddim.steps(&config(&fields), 5).expect("steps")
    };
    let plain = ddim.steps(&config(&json!({ "clip_sample": false })), 5).expect("steps");
    for limit in [0.5, 1.0] {
        for (found, plain) in thresholded(limit).iter().zip(&plain) {
            assert_eq!((found.thresholding, found.clip), (None, Some(1.0)));
            assert_eq!([found.x0_x, found.x0_m], [plain.x0_x / limit, plain.x0_m / limit]);
        }
    }
    for (found, plain) in thresholded(1.5).iter().zip(&plain) {
        assert_eq!(found.thresholding.map(|thresholding| thresholding.limit), Some(1.5));
        assert_eq!((found.clip, found.x0_x, found.x0_m), (None, plain.x0_x, plain.x0_m));
    }
}

/// Heun's method calls the network twice a step but in the last (Karras et al., 2022, algorithm 1), the others once.
#[test]
fn lists_have_as_many_entries_as_calls() {
    for &solver in Solver::ALL {
        for n in 1..=12 {
            let Ok(list) = solver.steps(&of(solver, &json!({})), n) else { continue };
            let expected = if solver == Solver::Heun { 2 * n - 1 } else { n };
            assert_eq!((list.len(), solver.calls(n)), (expected, expected), "{}, {n} steps", solver.name());
            assert_eq!(solver.steps_in(expected), n, "{}, {expected} calls", solver.name());
        }
    }
}

/// A classifier's gradient moves the noise by −√(1−ᾱ) times itself (Dhariwal and Nichol, 2021, arXiv:2105.05233, algorithm 2), and
/// with it what a network predicts instead, whatever a solver makes of that.
#[test]
fn a_gradient_moves_predictions_alike_in_every_solver() {
    let mut checked = 0;
    for &solver in Solver::ALL {
        for prediction in ["epsilon", "sample", "v_prediction"] {
            for fields in [
                json!({}),
                json!({ "clip_sample": false }),
                json!({ "predict_x0": false, "final_sigmas_type": "sigma_min" }),
                json!({ "thresholding": true, "sample_max_value": 0.5 }),
            ] {
                let mut fields = fields;
                fields["prediction_type"] = json!(prediction);
                // Not all read all fields; UniPC does.
                let steps = solver.steps(&of(solver, &fields), 7);
                assert!(steps.is_ok() || solver != Solver::UniPc, "{fields}: {steps:?}");
                let Ok(steps) = steps else { continue };
                for step in steps.iter().filter(|_| of_betas(solver)) {
                    let (Level { signal, noise, .. }, found) = (step.level, step.gradient_factor());
                    let expected = match prediction {
                        "epsilon" => -noise,
                        "sample" => noise * noise / signal,
                        _ => -noise / signal,
                    };
                    let what = format!("{} {fields}, timestep {}", solver.name(), step.timestep);
                    assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{what}: {found}, not {expected}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 300, "{checked} steps");
}

/// Whether a sample is √ᾱ·x0 + √(1−ᾱ)·ε, ᾱ from betas.
fn of_betas(solver: Solver) -> bool {
    !matches!(solver, Solver::FlowMatchEuler | Solver::EdmEuler | Solver::Consistency)
}
