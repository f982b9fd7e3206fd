from harness.running import executing


def test_units_that_others_hold_come_last_and_none_is_lost(monkeypatch):
    monkeypatch.setattr(executing, "WAIT_SECONDS", 0)
    held = {"b": 2, "c": 4}
    asked = []

    def run(unit):
        asked.append(unit)
        held[unit] = held.get(unit, 0) - 1
        return None if held[unit] >= 0 else unit

    assert list(executing.run_here(["a", "b", "c", "d"], run)) == list("adbc")
    assert asked == list("abcdbcbccc")[: len(asked)]
