#!/bin/sh
# The main job on built-in data, in the commands a user would type. usage: demo.sh FOLDER
set -eu
run=$1
rm -rf "$run"
say() { printf '\n$ %s\n' "$*"; "$@"; }
say mammodensity phantom --exams 320 --size 128 --seed 1 "$run/phantoms"
say mammodensity check "$run/phantoms"
say mammodensity train "$run/phantoms" --model "$run/model" --size 128 --epochs 20 --shares 0.6 0.1 0.3
say mammodensity phantom --exams 60 --size 128 --seed 2 "$run/calibration-set"
say mammodensity predict "$run/calibration-set" --model "$run/model" --csv "$run/calibration.csv"
say mammodensity calibrate "$run/calibration.csv" --labels "$run/calibration-set/manifest.csv" --model "$run/model"
say mammodensity predict "$run/model/manifest.csv" --split test --model "$run/model" --csv "$run/predictions.csv" --html "$run/results.html"
say mammodensity explain "$run/model/manifest.csv" --split test --first 4 --model "$run/model" --output "$run/explanations"
say mammodensity evaluate --csv "$run/predictions.csv" --labels "$run/phantoms/manifest.csv" --json "$run/figures.json"
say mammodensity report "$run/model" --output "$run/report.html"
