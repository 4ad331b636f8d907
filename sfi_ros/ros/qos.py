"""Qualities of service: what the topics offer and ask for, and who does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription


def camera_qos(depth: int = 1) -> QoSProfile:
    """Of subscriptions to a camera: takes what reliable and best-effort publishers offer, only the newest."""
    return QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)


def result_qos() -> QoSProfile:
    """Of published results: reliable, because that fits subscribers of both kinds."""
    return QoSProfile(depth=5, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)


def latched_qos() -> QoSProfile:
    """Of a message that is published once and also reaches those who subscribe later."""
    return QoSProfile(
        depth=1,
        history=HistoryPolicy.KEEP_LAST,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def publish_on(node: Node, message_type: Any, topic: str, qos: QoSProfile | None = None) -> Publisher:
    """Make a publisher, of results unless `qos` says otherwise.

    `qos_overrides./topic.publisher.reliability` and the like can change its QoS at start.
    """
    return node.create_publisher(message_type, topic, qos or result_qos(), qos_overriding_options=_overridable())


def subscribe_to(
    node: Node, message_type: Any, topic: str, receive: Callable[..., None], qos: QoSProfile, **more: Any
) -> Subscription:
    """Make a subscription whose QoS can be changed at start, too; `more` as `create_subscription` takes it."""
    return node.create_subscription(message_type, topic, receive, qos, qos_overriding_options=_overridable(), **more)


def _overridable() -> QoSOverridingOptions:
    return QoSOverridingOptions.with_default_policies()


def publisher_problems(node: Node, topic: str, message_type: str, asked: QoSProfile) -> list[str]:
    """Why each publisher of a topic cannot be heard by a subscription.

    Args:
        node: to look around with.
        topic: full name, remapped.
        message_type: such as "sensor_msgs/msg/Image".
        asked: QoS of the subscription.

    Returns:
        One sentence per publisher that does not fit; nobody publishing at all is one, too.
    """
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return [f"nobody publishes {topic}"]
    problems = []
    for publisher in publishers:
        who = f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
        if publisher.topic_type != message_type:
            problems.append(f"{who} publishes {topic} as {publisher.topic_type}, not {message_type}")
            continue
        compatible, reason = qos_check_compatible(publisher.qos_profile, asked)
        if compatible == QoSCompatibility.ERROR:
            problems.append(f"{who} publishes {topic} with incompatible QoS: {reason.strip().rstrip(';')}")
    return problems
