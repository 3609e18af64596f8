from collections import Counter

import numpy as np
import pytest

from kicourse.data import service_messages, tickets


def test_both_labels_and_all_teams_come_about_equally_often() -> None:
    rng = np.random.default_rng(0)
    labels = Counter(message.label for message in service_messages.generate(rng, 1_000, held_out=False))
    teams = Counter(ticket.team for ticket in tickets.generate(rng, 1_200, held_out=True))
    assert set(labels) == set(service_messages.LABELS)
    assert min(labels.values()) > 420
    assert set(teams) == set(tickets.TEAMS)
    assert min(teams.values()) > 140


def test_what_is_held_out_never_comes_in_training() -> None:
    rng = np.random.default_rng(0)
    training = " ".join(message.text for message in service_messages.generate(rng, 2_000, held_out=False))
    held_out = " ".join(message.text for message in service_messages.generate(rng, 500, held_out=True))
    for words in ("answers to the switch", "spilt oil", "nobody can say", "not once has", "what can I say"):
        assert words not in training
        assert words in held_out


def test_whether_something_is_denied_does_not_tell_the_label() -> None:
    messages = service_messages.generate(np.random.default_rng(0), 4_000, held_out=False)
    for word in ("not", "has", "it", "longer"):
        shares = [message.label == "solved" for message in messages if word in message.text.split()]
        assert len(shares) > 100
        assert 0.4 < sum(shares) / len(shares) < 0.6, word


def test_equal_generators_make_equal_messages() -> None:
    one, other = (service_messages.generate(np.random.default_rng(3), 50, held_out=True) for _time in range(2))
    assert one == other


@pytest.mark.parametrize("typos", [0.0, 0.5])
def test_typos_change_words_and_not_their_number(typos: float) -> None:
    right = tickets.generate(np.random.default_rng(5), 20, held_out=False, typos=0.0)
    wrong = tickets.generate(np.random.default_rng(5), 20, held_out=False, typos=typos)
    assert len(right[0].text.split()) == len(wrong[0].text.split())
    assert (right == wrong) == (typos == 0.0)


def test_what_was_written_by_hand_is_read_whole_and_mixed() -> None:
    written = service_messages.written()
    assert Counter(message.label for message in written) == {"open": 48, "solved": 24}
    assert len({message.text for message in written}) == 72
    assert len({message.label for message in written[:10]}) == 2
    sorted_by_team = tickets.written()
    assert Counter(ticket.team for ticket in sorted_by_team) == dict.fromkeys(tickets.TEAMS, 25)
    assert len({ticket.team for ticket in sorted_by_team[:10]}) > 3
