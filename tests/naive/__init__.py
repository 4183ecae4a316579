"""The papers as plain float loops, independent of everything that is tested against them."""

from tests.naive import elman, gru, lstm

NAIVE = {"elman": elman.step, "gru": gru.step, "lstm": lstm.step}
