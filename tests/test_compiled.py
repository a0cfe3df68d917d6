import numba
import pytest

from melody_diffusers import compiled


def test_where_no_folder_can_hold_the_result_it_is_compiled_all_the_same(monkeypatch):
    njit, asked = numba.njit, []

    def refuse(function, cache=False, **options):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(function, **options)

    monkeypatch.setattr(numba, "njit", refuse)
    function = compiled.compiled(lambda number: number + 1)
    assert asked == [True, False] and function(1) == 2


@pytest.mark.parametrize(("threads", "work", "parts"), [(3, compiled.SPLIT, 3), (3, 1, 1), (1, compiled.SPLIT, 1)])
def test_parts_cover_everything_once(monkeypatch, threads, work, parts):
    monkeypatch.setattr(compiled.torch, "get_num_threads", lambda: threads)
    covered = []
    compiled.run_parts(lambda index, first, last: covered.append((index, *range(first, last))), 10, work)
    assert sorted(each[0] for each in covered) == list(range(parts)) and compiled.num_parts(10, work) == parts
    assert sorted(place for each in covered for place in each[1:]) == list(range(10))


def test_an_error_in_any_part_is_raised(monkeypatch):
    monkeypatch.setattr(compiled.torch, "get_num_threads", lambda: 2)

    def fail(index, first, last):
        if index == 1:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        compiled.run_parts(fail, 10, compiled.SPLIT)
