import Foundation

/// Why the app cannot show an answer, in words that say what to do.
public enum AppProblem: Hashable, Sendable {
  /// The user refused the camera, or may not grant it.
  case cameraDenied
  /// There is no camera, as in the simulator, or it cannot be opened.
  case cameraUnavailable
  /// There is no model in the app or its documents.
  case noModel
  /// A model that cannot be loaded.
  case badModel(name: String, reason: String)
  /// A picture that cannot be read.
  case badPhoto(reason: String)
  /// A model that failed on a picture.
  case failedPrediction(reason: String)

  /// What the app offers to do about it.
  public enum Remedy: Hashable, Sendable {
    /// Open the app's page in Settings.
    case openSettings
    /// Choose a picture instead.
    case choosePhoto
    /// Open a model from Files.
    case openModel
    /// Load again.
    case retry

    /// Title of the button.
    public var title: String {
      switch self {
      case .openSettings: "Open Settings"
      case .choosePhoto: "Choose Photo"
      case .openModel: "Open Model"
      case .retry: "Try Again"
      }
    }
  }

  /// A few words.
  public var title: String {
    switch self {
    case .cameraDenied: "No Access to the Camera"
    case .cameraUnavailable: "No Camera"
    case .noModel: "No Model"
    case .badModel(let name, _): "\(name) Cannot Be Loaded"
    case .badPhoto: "Picture Cannot Be Read"
    case .failedPrediction: "No Answer"
    }
  }

  /// A sentence or two, with the way out.
  public var message: String {
    switch self {
    case .cameraDenied:
      "Allow the camera for this app in Settings. Pictures can be chosen without it."
    case .cameraUnavailable:
      "This device offers no camera that the app could open. Choose a picture instead."
    case .noModel:
      "Run “make swift-models” and build again, or open an .mlpackage from Files."
    case .badModel(_, let reason), .badPhoto(let reason), .failedPrediction(let reason):
      reason
    }
  }

  /// Name of the SF Symbol beside it.
  public var symbol: String {
    switch self {
    case .cameraDenied: "lock.slash"
    case .cameraUnavailable: "video.slash"
    case .noModel: "shippingbox"
    case .badModel, .failedPrediction: "exclamationmark.triangle"
    case .badPhoto: "photo"
    }
  }

  /// What to offer, the most useful first.
  public var remedies: [Remedy] {
    switch self {
    case .cameraDenied: [.openSettings, .choosePhoto]
    case .cameraUnavailable, .badPhoto: [.choosePhoto]
    case .noModel: [.openModel]
    case .badModel: [.retry, .openModel]
    case .failedPrediction: [.retry]
    }
  }
}
