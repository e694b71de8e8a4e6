#!/bin/bash
# Make the store that `older_store.tar.xz` holds, with the Lightsweep of a checkout:
#
#     make.sh CHECKOUT PYTHON FOLDER    # make.sh /tmp/lightsweep-older /tmp/lightsweep-older/.venv/bin/python /tmp/older
#
# The packed one was made by commit b90f984 (before the code was moved into rooms), in /tmp/older, by the user `user`.
# Do not make it again with later code: that it is older is the point of it.
set -eu
checkout=$1 python=$2 folder=$3
export PYTHONPATH=$checkout LOGNAME=user USER=user TERM=dumb PYTHONDONTWRITEBYTECODE=1 MLFLOW_DISABLE_TELEMETRY=true
export GIT_AUTHOR_NAME=user GIT_AUTHOR_EMAIL=user@host GIT_COMMITTER_NAME=user GIT_COMMITTER_EMAIL=user@host
mkdir "$folder" "$folder/mine"
cd "$folder"

cat > mine/fragile.py <<'PYTHON'
"""A callback that fails in the middle of some trials."""

import pytorch_lightning as pl


class Fragile(pl.Callback):
    def __init__(self, depth: int) -> None:
        self.depth = depth

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1 and self.depth == 1:
            raise RuntimeError("one layer is too few")
PYTHON
mkdir mine/callbacks
printf 'fragile:\n  _target_: fragile.Fragile\n  depth: ${model.depth}\n' > mine/callbacks/fragile.yaml
printf 'mlruns/\n' > .gitignore
git init -q -b main . && git add . && git commit -q -m 'A folder to work in'

lightsweep() { "$python" -m sweeps "$@"; }
common=(trainer.accelerator=cpu launcher.slots=1 launcher.threads=1 tracking.log_every_n_steps=8)
tiny=("${common[@]}" model.width=6 seed=1)

# Six trials: the first two by order, some pruned, some that violate the constraint.
lightsweep sweep "${tiny[@]}" study.name=small study.num_trials=6 trainer.max_epochs=3 pruner.n_startup_trials=2 \
    'optimizer.lr=tag(log,interval(1e-4,1e-1))' 'model.depth=range(1,4)' 'study.constraints="num_params <= 530"' \
    'study.enqueue=[{optimizer.lr:0.03,model.depth:1},{optimizer.lr:0.03,model.depth:1}]' +tracking.tags.team=digits

# Two objectives.
lightsweep sweep "${common[@]}" seed=7 study.name=front study.num_trials=6 trainer.max_epochs=3 pruner=none \
    'study.metric=[val/acc,num_params]' 'study.direction=[maximize,minimize]' \
    'optimizer.lr=tag(log,interval(1e-2,1e-1))' 'model.width=choice(2,4,8)'

# Two trainings of each trial.
lightsweep sweep "${tiny[@]}" study.name=repeated study.num_trials=3 study.replicates=2 trainer.max_epochs=2 \
    pruner=none 'optimizer.lr=tag(log,interval(1e-3,1e-1))' sampler=random

# Parameters that are searched only with some values of others, and ranges that belong to an option.
lightsweep sweep "${common[@]}" seed=3 study.name=conditional study.num_trials=5 trainer.max_epochs=1 pruner=none \
    sampler=random model=mlp,cnn 'search.groups={model: false}' 'model.depth=range(1,3) when model=mlp' \
    'model.width=choice(4,8) when model=mlp' 'model.channels=choice(2,4) when model=cnn' \
    'model.hidden=choice(4,8) when model=cnn' 'model.blocks=choice(1,2) when model=cnn' optimizer=sgd,adam

# Values of every type; then another space, which drops what does not fit.
lightsweep sweep "${common[@]}" seed=4 study.name=types study.num_trials=5 trainer.max_epochs=1 pruner=none \
    sampler=random 'optimizer.lr=tag(log,interval(1e-4,1e-1))' 'model.dropout=range(0,0.3,0.1)' model.depth=2 \
    'model.width=choice(8,[6,4])' 'data.drop_last=true,false' 'data.batch_size=int(interval(32,64))' \
    'trainer.gradient_clip_val=null,0.5,2' '+tracking.tags.lot=1e3,2024_11_30,true' 'model.activation=relu,tanh'
lightsweep resume types --migrate study.num_trials=6 'model.activation=choice(relu)'

# Trials that fail by the user's own code, and some that take the result of another.
lightsweep sweep --config-dir mine "${tiny[@]}" study.name=failing study.num_trials=5 trainer.max_epochs=2 \
    pruner=none sampler=random model.depth=1,2 'callbacks=[default,fragile]'

# Interrupted in their second trials: by Ctrl-C, and by a death that leaves no word.
interrupt() {  # SIGNAL STUDY
    "$python" -c 'import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)
import os; os.execv(sys.argv[1], sys.argv[1:])' "$python" -m sweeps sweep "${tiny[@]}" "study.name=$2" \
        study.num_trials=3 trainer.max_epochs=30 pruner=none tracking.resume_overhead=1 sampler=random \
        tracking.log_every_n_steps=40 'optimizer.lr=tag(log,interval(1e-4,1e-1))' &
    local driver=$!
    until compgen -G "mlruns/$2/0001/resume-*.ckpt" > /dev/null; do sleep 0.05; done
    kill "-$1" "$driver"
    wait "$driver" || true
}
interrupt INT interrupted
interrupt KILL killed

# Single runs; the first is promoted, twice: the second version is one of the study.
lightsweep train "${tiny[@]}" trainer.max_epochs=2
lightsweep train --config-dir mine "${tiny[@]}" trainer.max_epochs=1 'callbacks=[default,fragile]'
lightsweep promote train#0 --name digits
lightsweep reproduce best:small
lightsweep promote best:small --name digits --alias champion --require-reproduced
find mlruns/artifacts -name input_example.json | sort | head -n 1 | xargs -I FILE cp FILE samples.json
lightsweep predict digits@champion samples.json --probabilities

# Pack it: databases as one file each; without reports and plots, which are large and are written anew.
rm -rf mlruns/*/report.html mlruns/*/plots mlruns/artifacts/*/artifacts/report.html mlruns/artifacts/*/artifacts/plots
rm -f mlruns/*.lock mlruns/*/.driver.lock mlruns/server.log
"$python" - <<'PYTHON'
import sqlite3
for name in ("mlflow", "optuna"):
    database = sqlite3.connect(f"mlruns/{name}.db")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.execute("VACUUM")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
PYTHON
tar --create --sort=name --owner=user:1000 --group=user:1000 mine mlruns samples.json | xz -9e > older_store.tar.xz
