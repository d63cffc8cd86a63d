"""The fake SLURM against the real one: the same jobs end in the same states. The rest of the tests relies on that."""


def _script(path, text):
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


def test_exit_codes_become_states(queue):
    ok, bad, killed = queue.sbatch(script="true"), queue.sbatch(script="exit 3"), queue.sbatch(script="kill -9 $$")
    queue.expect({ok: "COMPLETED", bad: "FAILED", killed: "FAILED"})
    assert [queue.rows()[job][1] for job in (ok, bad, killed)] == ["None", "NonZeroExitCode", "JobLaunchFailure"]


def test_dependencies_of_plain_jobs(queue):
    ok, bad = queue.sbatch(script="sleep 1"), queue.sbatch(script="sleep 1; exit 1")
    kill = "--kill-on-invalid-dep=yes"
    expected = {
        f"afterok:{ok}": "COMPLETED",
        f"afterok:{bad}": "DependencyNeverSatisfied",
        f"afterok:{ok}:{bad}": "DependencyNeverSatisfied",
        f"afterany:{ok},afterany:{bad}": "COMPLETED",
        f"afterany:{ok},afterok:{bad}": "DependencyNeverSatisfied",
        f"afternotok:{bad}": "COMPLETED",
        f"afternotok:{ok}": "DependencyNeverSatisfied",
        f"afterok:{ok}?afterok:{bad}": "COMPLETED",
        f"afternotok:{ok}?afternotok:{bad}": "COMPLETED",
        f"after:{bad}": "COMPLETED",
        f"aftercorr:{ok}": "COMPLETED",
        "afterok:999999": "COMPLETED",
        f"afterok:{ok}:999999": "COMPLETED",
    }
    jobs = {queue.sbatch(f"--dependency={text}"): state for text, state in expected.items()}
    jobs[queue.sbatch(f"--dependency=afterok:{bad}", kill)] = "CANCELLED"
    jobs[queue.sbatch(f"--dependency=afternotok:{ok}?afternotok:{ok}", kill)] = "CANCELLED"
    jobs[queue.sbatch(f"--dependency=afternotok:{ok}?afternotok:{bad}", kill)] = "COMPLETED"
    queue.expect(jobs)


def test_a_chain_of_dependencies_stops_behind_the_failure(queue):
    first = queue.sbatch(script="exit 1")
    second = queue.sbatch(f"--dependency=afterok:{first}")
    third = queue.sbatch(f"--dependency=afterok:{second}")
    queue.until(lambda: queue.rows()[second] == ("PENDING", "DependencyNeverSatisfied"))
    assert queue.rows()[third] == ("PENDING", "Dependency")
    queue.run("scancel", second)
    queue.until(lambda: queue.rows()[third] == ("PENDING", "DependencyNeverSatisfied"))


def test_dependencies_of_arrays(queue):
    parent = queue.sbatch("--array=0,2,5,9%2", script="sleep 0.5; test $SLURM_ARRAY_TASK_ID != 2")
    corr = queue.sbatch("--array=2,5,7", f"--dependency=aftercorr:{parent}")
    parts = queue.sbatch(f"--dependency=afterok:{parent}_0:{parent}_9")
    whole = queue.sbatch(f"--dependency=afterok:{parent}")
    one = queue.sbatch(f"--dependency=aftercorr:{parent}_5")
    mixed = queue.sbatch("--array=5,9", f"--dependency=aftercorr:{parent},afterok:{parts}")
    anyway = queue.sbatch("--array=0-1", f"--dependency=afterany:{parent}")
    failed = queue.sbatch(f"--dependency=afternotok:{parent}")
    never = "DependencyNeverSatisfied"
    expected = {
        **{f"{parent}_0": "COMPLETED", f"{parent}_2": "FAILED", f"{parent}_5": "COMPLETED", f"{parent}_9": "COMPLETED"},
        **{f"{corr}_2": never, f"{corr}_5": "COMPLETED", f"{corr}_7": never},
        **{parts: "COMPLETED", whole: never, one: "COMPLETED", failed: "COMPLETED"},
        **{
            f"{mixed}_5": "COMPLETED",
            f"{mixed}_9": "COMPLETED",
            f"{anyway}_0": "COMPLETED",
            f"{anyway}_1": "COMPLETED",
        },
    }
    queue.expect(expected)


def test_an_array_task_knows_itself_and_its_files(queue, tmp_path):
    step = _script(tmp_path / "step", "echo $SLURM_ARRAY_JOB_ID $SLURM_ARRAY_TASK_ID $SLURM_PROCID/$SLURM_NTASKS")
    array = queue.sbatch("--array=3,7", f"--output={tmp_path}/%A_%a.out", script=f"echo hi; srun {step}")
    queue.expect({f"{array}_3": "COMPLETED", f"{array}_7": "COMPLETED"})
    for index in ("3", "7"):
        assert (tmp_path / f"{array}_{index}.out").read_text().split() == ["hi", array, index, "0/1"]


def test_tasks_on_two_nodes(queue, tmp_path):
    line = "echo $SLURM_PROCID $SLURM_LOCALID $SLURM_NODEID $SLURM_NTASKS $MASTER_ADDR"
    script = f"srun --unbuffered --output {tmp_path}/%j_%t.out bash -c '{line}; exit $SLURM_PROCID'"
    job = queue.sbatch("--nodes=2", "--ntasks-per-node=1", script=script)
    queue.expect({job: "FAILED"})
    assert (tmp_path / f"{job}_0.out").read_text().split() == ["0", "0", "0", "2", "127.0.0.1"]
    assert (tmp_path / f"{job}_1.out").read_text().split() == ["1", "0", "1", "2", "127.0.0.1"]


def test_hold_and_release(queue):
    held = queue.sbatch("--hold")
    child = queue.sbatch(f"--dependency=afterok:{held}")
    queue.until(lambda: queue.rows()[held] == ("PENDING", "JobHeldUser"))
    assert queue.rows()[child] == ("PENDING", "Dependency")
    queue.run("scontrol", "release", held)
    queue.expect({held: "COMPLETED", child: "COMPLETED"})


def test_begin_waits(queue):
    job = queue.sbatch("--begin=now+3")
    queue.until(lambda: queue.rows()[job] == ("PENDING", "BeginTime"))
    queue.expect({job: "COMPLETED"})


def test_requeue_keeps_the_id_and_counts_and_the_child_waits(queue, tmp_path):
    script = f'echo r$SLURM_RESTART_COUNT >> {tmp_path}/starts; [ "$SLURM_RESTART_COUNT" = 1 ] || srun sleep 60'
    parent = queue.sbatch("--requeue", script=script)
    child = queue.sbatch(f"--dependency=afterok:{parent}", script=f"cp {tmp_path}/starts {tmp_path}/seen")
    queue.until((tmp_path / "starts").exists)
    queue.run("scontrol", "requeue", parent)
    queue.expect({parent: "COMPLETED", child: "COMPLETED"})
    assert (tmp_path / "seen").read_text().split() == ["r", "r1"]


def test_requeue_of_what_is_not_running(queue):
    held, ended = queue.sbatch("--hold"), queue.sbatch(script="exit 1")
    queue.expect({ended: "FAILED"})
    assert "pending" in queue.run("scontrol", "requeue", held, check=False)
    queue.run("scontrol", "requeue", ended)
    assert queue.rows()[ended] == ("PENDING", "NonZeroExitCode")
    assert "nvalid job id" in queue.run("scontrol", "requeue", "999999", check=False)


def test_a_failed_dependency_is_revived_by_hand_alone(queue, tmp_path):
    parent = queue.sbatch("--requeue", script=f"[ -e {tmp_path}/mended ]")
    child = queue.sbatch(f"--dependency=afterok:{parent}")
    queue.until(lambda: queue.rows()[child][1] == "DependencyNeverSatisfied")
    (tmp_path / "mended").touch()
    queue.run("scontrol", "requeue", parent)
    queue.expect({parent: "COMPLETED"})
    assert queue.rows()[child] == ("PENDING", "DependencyNeverSatisfied")
    queue.run("scontrol", "update", f"JobId={child}", f"Dependency=afterok:{parent}")
    queue.expect({child: "COMPLETED"})


def test_a_signal_reaches_the_steps_and_not_the_script(queue, tmp_path):
    wait = f"touch {tmp_path}/on; for i in $(seq 100); do sleep 0.1; [ -e {tmp_path}/told ] && exit; done; exit 1"
    step = _script(tmp_path / "step", f"trap 'touch {tmp_path}/told' USR2; {wait}")
    job = queue.sbatch(script=f"srun {step}")
    queue.until((tmp_path / "on").exists)
    queue.run("scancel", "--signal=USR2", job)
    queue.expect({job: "COMPLETED"})
    assert (tmp_path / "told").exists()


def test_cancel_ends_what_runs_and_what_waits(queue, tmp_path):
    trap = f"trap 'touch {tmp_path}/term; exit 1' TERM; touch {tmp_path}/on"
    step = _script(tmp_path / "step", f"{trap}; while :; do sleep 0.1; done")
    running = queue.sbatch(script=f"srun {step}")
    waiting = queue.sbatch(f"--dependency=afterany:{running}", script=f"touch {tmp_path}/never")
    queue.until((tmp_path / "on").exists)
    queue.run("scancel", waiting, running)
    queue.expect({running: "CANCELLED", waiting: "CANCELLED"})
    queue.until((tmp_path / "term").exists)
    assert not (tmp_path / "never").exists()
    assert queue.run("scancel", "999999") == ""


def test_cancel_by_name_and_by_state(queue):
    running = queue.sbatch("--job-name=mine", script="sleep 60")
    waiting = queue.sbatch("--job-name=mine", "--hold")
    other = queue.sbatch("--job-name=other", "--hold")
    queue.expect({running: "RUNNING"})
    queue.run("scancel", "--name=mine", "--state=PENDING")
    assert {job: queue.rows()[job][0] for job in (running, waiting, other)} == {
        running: "RUNNING", waiting: "CANCELLED", other: "PENDING",
    }  # fmt: skip


def test_unknown_ids_in_squeue(queue):
    known = queue.sbatch("--hold")
    assert "Invalid job id" in queue.run("squeue", "-h", "-j", "999999", check=False)
    assert queue.run("squeue", "-h", "-r", "-j", f"999999,{known}", "-o", "%i %T %r %E %j") == (
        f"{known} PENDING JobHeldUser (null) wrap"
    )


def test_an_array_that_is_too_large_is_refused(queue):
    before = queue.rows().keys()
    assert "Invalid job array specification" in queue.run("sbatch", "--array=0-1001", "--wrap=true", check=False)
    assert queue.rows().keys() == before


def test_output_is_appended_over_a_requeue(queue, tmp_path):
    out = tmp_path / "out"
    script = 'echo $SLURM_RESTART_COUNT.; [ -n "$SLURM_RESTART_COUNT" ] || scontrol requeue $SLURM_JOB_ID; sleep 1'
    job = queue.run("sbatch", "--parsable", f"--output={out}", "--open-mode=append", "--requeue", f"--wrap={script}")
    queue.expect({job: "COMPLETED"})
    assert out.read_text().split()[0] == "."
    assert out.read_text().split()[-1] == "1."


def test_the_fake_accounting(fake_slurm, commands, monkeypatch):
    job = commands.sbatch(script="exit 2")
    commands.expect({job: "FAILED"})
    words = ["sacct", "-X", "-n", "-P", "-j", job, "-o", "JobID,State,ExitCode"]
    assert commands.run(*words) == f"{job}|FAILED|2:0"
    monkeypatch.setenv("FAKE_SLURM_SACCT", "0")
    assert "disabled" in commands.run(*words, check=False)


def test_the_fake_time_limit_tells_and_then_ends(fake_slurm, commands, monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_SLURM_MINUTE_S", "2")
    lines = "trap 'told=1' USR2; while :; do sleep 0.1; [ -z \"$told\" ] || touch " + f"{tmp_path}/went-on; done"
    step = _script(tmp_path / "step", lines)
    job = commands.sbatch("--time=1", "--signal=USR2@30", script=f"srun {step}")
    commands.expect({job: "TIMEOUT"})
    assert (tmp_path / "went-on").exists()


def test_the_fake_without_its_controller(fake_slurm, commands):
    (fake_slurm / "down").touch()
    assert "Unable to contact slurm controller" in commands.run("sbatch", "--wrap=true", check=False)


def test_a_fake_that_only_counts(fake_slurm, commands, monkeypatch):
    monkeypatch.setenv("FAKE_SLURM_RUN", "0")
    parent = commands.sbatch("--array=0-999")
    commands.sbatch("--array=0-999", f"--dependency=aftercorr:{parent}")
    assert len(commands.rows()) == 2000
    assert {state for state, _ in commands.rows().values()} == {"PENDING"}
    assert [line.split()[0] for line in (fake_slurm / "calls").read_text().splitlines()].count("sbatch") == 2
