from hica_simulations.experiments.baselines import every_run


def test_a_run_with_its_baselines_is_not_run_again(monkeypatch, tmp_path):
    finished = {"baselines": {"zero_shot": {}, "pooled": {}}}

    def simulate(scenario, place, watching):
        return finished

    monkeypatch.setattr(every_run, "simulate", simulate)
    monkeypatch.setattr(every_run, "build_sites", None)  # nothing else is called
    assert every_run.simulate_with_baselines(None, None) is finished
