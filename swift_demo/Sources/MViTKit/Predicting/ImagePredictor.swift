/// Whatever answers about pictures.
///
/// `ImageModel` of MViTCoreML does it with Core ML. Write views and view models against the protocol,
/// and they run in tests, in previews and on Linux with a stand-in that answers from memory.
public protocol ImagePredictor<Frame>: Sendable {
  /// What pictures come as: `Photo` for Core ML.
  associatedtype Frame: Sendable

  /// What there is to know about the model.
  var information: ModelInformation { get }

  /// Answers about a picture.
  ///
  /// - Parameters:
  ///   - frame: the picture.
  ///   - top: how many classes to list, of a classifier.
  ///   - path: how to resize.
  func answer(_ frame: Frame, top: Int, path: InputPath) async throws -> ImagePrediction
}
