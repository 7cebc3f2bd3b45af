import numpy as np

from evojax_art.artwork.sheets import contact_sheet, spread


def test_contact_sheet_shows_every_picture_in_its_cell():
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    pictures = [np.full((10, 10, 3), colour, np.uint8) for colour in colours]
    sheet = contact_sheet(pictures, list("abcde"), cell=40, columns=2)
    for index, colour in enumerate(colours):
        top, left = 8 + index // 2 * (40 + 8 + 15), 8 + index % 2 * 48
        cell = sheet[top : top + 40, left : left + 40].reshape(-1, 3)
        assert tuple(np.median(cell, axis=0)) in (colour, (18, 18, 20))
        assert (cell == colour).all(axis=1).any()


def test_contact_sheet_keeps_aspect_ratios():
    wide = np.full((10, 40, 3), 255, np.uint8)
    sheet = contact_sheet([wide], ["wide"], cell=40)
    white = np.argwhere((sheet == 255).all(axis=2))
    rows, columns = np.ptp(white, axis=0) + 1
    assert (rows, columns) == (10, 40)


def test_spread_takes_both_ends_and_never_too_many():
    assert spread(3, 24) == [0, 1, 2]
    assert spread(0, 24) == []
    for count in range(25, 200):
        chosen = spread(count, 24)
        assert len(chosen) == 24
        assert (chosen[0], chosen[-1]) == (0, count - 1)
