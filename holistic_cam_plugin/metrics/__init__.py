"""Evaluation of saliency maps, in the library's calling form `metric(input_tensor, cams, targets, model)` -> `(B,)`."""

from holistic_cam_plugin.metrics.controls import CenteredGaussian, low_pass_wrapped
from holistic_cam_plugin.metrics.deletion_insertion import Curve, Deletion, FidelityCurves, Insertion, OverAll, blurred
from holistic_cam_plugin.metrics.difull import DiFull
from holistic_cam_plugin.metrics.efficient_mprt import EfficientMPRT, efficient_mprt, histogram_entropy
from holistic_cam_plugin.metrics.localization import AveragePrecision, BestIoU, average_precision, best_iou
from holistic_cam_plugin.metrics.lucidity import Lucidity, lucidity
from holistic_cam_plugin.metrics.order import relevance_ranks, tied_pixels
from holistic_cam_plugin.metrics.pointing_game import EnergyPointingGame, energy_pointing_game
from holistic_cam_plugin.metrics.randomization import (
    cascading_randomization,
    independent_randomization,
    parameter_layers,
)
from holistic_cam_plugin.metrics.regions import region_mask
from holistic_cam_plugin.metrics.road import RelativeROAD, RoadScores, SeededROADCombined
from holistic_cam_plugin.metrics.scoring import Score, class_probability, score_copies
from holistic_cam_plugin.metrics.similarity import Similarity, similarity

__all__ = [
    "AveragePrecision",
    "BestIoU",
    "CenteredGaussian",
    "Curve",
    "Deletion",
    "DiFull",
    "EfficientMPRT",
    "EnergyPointingGame",
    "FidelityCurves",
    "Insertion",
    "Lucidity",
    "OverAll",
    "RelativeROAD",
    "RoadScores",
    "Score",
    "SeededROADCombined",
    "Similarity",
    "average_precision",
    "best_iou",
    "blurred",
    "cascading_randomization",
    "class_probability",
    "efficient_mprt",
    "energy_pointing_game",
    "histogram_entropy",
    "independent_randomization",
    "low_pass_wrapped",
    "lucidity",
    "parameter_layers",
    "region_mask",
    "relevance_ranks",
    "score_copies",
    "similarity",
    "tied_pixels",
]
