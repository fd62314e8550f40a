import CoreGraphics
import Foundation
import MViTCoreML
import MViTKit

/// An image on its way to the screen.
///
/// Unchecked: a `CGImage` never changes, though not every SDK says so.
struct DrawnImage: @unchecked Sendable {
  let image: CGImage
}

/// A chosen picture, decoded once for the model and the screen.
struct Picture: Sendable {
  /// For the model.
  let photo: Photo
  /// For the screen, stored as it is.
  let image: DrawnImage
  /// Seconds that decoding took.
  let decoding: Double

  /// Longer edges are reduced while decoding: no model of this app sees more.
  static let maximumEdge = 2048

  /// Decodes a file's content; off the main actor, where it belongs.
  nonisolated static func decode(_ data: Data) async throws -> Picture {
    let clock = ContinuousClock()
    let start = clock.now
    let photo = try Photo(data: data, maximumEdge: maximumEdge).decoded()
    guard let image = photo.image else { throw ModelError.undecodable("The file") }
    return Picture(
      photo: photo, image: DrawnImage(image: image), decoding: (clock.now - start) / .seconds(1))
  }
}

/// An answer with what the screen needs of it.
struct Shown: Sendable {
  let answer: ImageAnswer
  let placement: Placement
  let information: ModelInformation
  /// How much of the picture each class covers, of a segmentation.
  var shares: [ClassShare] = []
  var overlay: DrawnImage?

  /// Counts and paints, off the main actor.
  nonisolated static func prepare(
    _ prediction: ImagePrediction, _ information: ModelInformation, hidden: Set<Int>
  ) async -> Shown {
    var shown = Shown(
      answer: prediction.answer, placement: prediction.placement, information: information)
    if case .segmentation(let map) = prediction.answer {
      shown.shares = map.shares()
      shown.overlay = information.palette.overlay(map, hidden: hidden)
        .makeImage(isPremultiplied: true).map(DrawnImage.init)
    }
    return shown
  }

  /// The same with other classes hidden.
  nonisolated func repainted(hidden: Set<Int>) async -> DrawnImage? {
    guard case .segmentation(let map) = answer else { return nil }
    return information.palette.overlay(map, hidden: hidden)
      .makeImage(isPremultiplied: true).map(DrawnImage.init)
  }

  /// Whether the screen would look the same.
  func looksLike(_ other: Shown?) -> Bool {
    answer == other?.answer && placement == other?.placement && information == other?.information
  }
}
