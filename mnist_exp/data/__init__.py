"""Labelled images: built-in data sets, files and folders, split into train, validation and test."""

from mnist_exp.data.arrays import given
from mnist_exp.data.builtin import digits, fashion_mnist, mnist
from mnist_exp.data.dataset import Dataset, ImageSet
from mnist_exp.data.files import npz
from mnist_exp.data.folder import folder
from mnist_exp.data.splits import Splits, sample, split
from mnist_exp.data.tables import csv

__all__ = [
    "Dataset", "ImageSet", "Splits",
    "csv", "digits", "fashion_mnist", "folder", "given", "mnist", "npz", "sample", "split",
]  # fmt: skip
