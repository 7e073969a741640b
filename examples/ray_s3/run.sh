#!/bin/sh
# SOURCE=s3://bucket/model TARGET=s3://bucket/out [RAY=HEAD:6379] [TO=litgpt] sh run.sh
set -eu
: "${SOURCE:?the folder of the checkpoint, s3://bucket/model}"
: "${TARGET:?the folder to make, s3://bucket/out}"
on="ray${RAY:+=$RAY}"

porter inspect "$SOURCE"
porter convert "$SOURCE" --to "${TO:-litgpt}" -o "$TARGET" --on "$on" --dry-run
porter convert "$SOURCE" --to "${TO:-litgpt}" -o "$TARGET" --on "$on"
porter inspect "$TARGET"
porter doctor "${TARGET%/*}"
