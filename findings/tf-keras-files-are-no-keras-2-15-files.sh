#!/usr/bin/env bash
# tf-keras 2.21: its .keras files cannot be read by Keras 2.15, whose name and major version it has.
#
# Guess: tf-keras is Keras 2 under another name for TensorFlow 2.16 and later, feature for feature;
#   a plain model that it saves loads in Keras 2.15, as the reverse does.
# Real (tf-keras 2.21.0, keras 2.15.0): the reverse does, with the same outputs in every bit. But each
#   input layer is written with a new setting, "optional", which Keras 2.15 refuses, and a functional
#   model by the module name tf_keras.src..., which it does not have, while the layers inside keep the
#   module name keras.layers. Weights and the rest of the file are the same: with the two taken out of
#   config.json Keras 2.15 reads it.
# Needs Python 3.10 or 3.11.
set -euo pipefail
python=$(for p in python3.11 python3.10 python3; do
    "$p" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 12))' 2>/dev/null && echo "$p" && break
done) || { echo "needs Python 3.10 or 3.11" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for name in old new; do "$python" -m venv "$folder/$name"; done
"$folder/old/bin/python" -m pip install --quiet --disable-pip-version-check \
    tensorflow-cpu==2.15.1 keras==2.15.0 numpy==1.26.4
"$folder/new/bin/python" -m pip install --quiet --disable-pip-version-check \
    tensorflow-cpu==2.21.0 tf-keras==2.21.0
export TF_CPP_MIN_LOG_LEVEL=3 OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES= TF_ENABLE_ONEDNN_OPTS=0
cat > "$folder/save.py" <<'PY'
import sys

import numpy as np

keras = __import__(sys.argv[1])
keras.utils.set_random_seed(0)
sequential = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
x = keras.layers.Input((4,))
functional = keras.Model(x, keras.layers.Dense(3)(x))
for name, model in (("sequential", sequential), ("functional", functional)):
    model.save(f"{sys.argv[2]}/{name}-{sys.argv[1]}.keras")
    np.save(f"{sys.argv[2]}/{name}-{sys.argv[1]}.npy", model(np.ones((2, 4), "float32")).numpy())
PY
cat > "$folder/read.py" <<'PY'
import os
import sys
import zipfile

import numpy as np

keras, folder = __import__(sys.argv[1]), sys.argv[2]


def read(path):
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        return str(error)


other = {"keras": "tf_keras", "tf_keras": "keras"}[sys.argv[1]]
found = []
for name in ("sequential", "functional"):
    path = f"{folder}/{name}-{other}.keras"
    model = read(path)
    refused = isinstance(model, str)
    words = [word for word in ("'optional'", "tf_keras.src") if refused and word in model]
    found.append((refused, *words))
    print(f"{sys.argv[1]} reads {other}'s {name} model: {'refused, ' + ', '.join(words) if refused else 'yes'}")
    if refused:
        with zipfile.ZipFile(path) as given, zipfile.ZipFile(f"{path}.zip", "w") as known:
            for part in given.namelist():
                text = given.read(part)
                if part == "config.json":
                    text = text.replace(b', "optional": false', b"").replace(b"tf_keras.", b"keras.")
                known.writestr(part, text)
        os.replace(f"{path}.zip", f"{folder}/mended.keras")
        model = read(f"{folder}/mended.keras")
    expected = np.load(f"{folder}/{name}-{other}.npy")
    same = model(np.ones((2, 4), "float32")).numpy().tobytes() == expected.tobytes()
    print(f"  outputs the same in every bit{' once mended' if refused else ''}: {same}")
    if not same:
        sys.exit(1)
wanted = {
    "keras": [(True, "'optional'"), (True, "'optional'", "tf_keras.src")],
    "tf_keras": [(False,), (False,)],
}[sys.argv[1]]
if found != wanted:
    print("changed", found)
    sys.exit(1)
PY
"$folder/old/bin/python" "$folder/save.py" keras "$folder" 2>/dev/null
"$folder/new/bin/python" "$folder/save.py" tf_keras "$folder" 2>/dev/null
"$folder/old/bin/python" "$folder/read.py" keras "$folder" 2>/dev/null
"$folder/new/bin/python" "$folder/read.py" tf_keras "$folder" 2>/dev/null
