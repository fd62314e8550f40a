import MViTKit

/// Why the app cannot show an answer, in words that say what to do.
enum AppProblem: Hashable, Sendable {
  /// The user refused the camera, or may not grant it.
  case cameraDenied
  /// There is no camera, as in the simulator, or it cannot be opened.
  case cameraUnavailable
  /// There is no model in the app or its documents.
  case noModel
  /// A model that cannot be loaded.
  case badModel(name: String, reason: String)
  /// The system keeps the camera for now.
  case cameraInterrupted(CaptureLifecycle.Interruption)
  /// The camera failed more than once.
  case cameraFailed
  /// A picture that cannot be read.
  case badPhoto(reason: String)
  /// A model that failed on a picture.
  case failedPrediction(reason: String)

  /// What the app offers to do about it.
  enum Remedy: Hashable, Sendable {
    /// Open the app's page in Settings.
    case openSettings
    /// Choose a picture instead.
    case choosePhoto
    /// Open a model from Files.
    case openModel
    /// Load again.
    case retry

    /// Title of the button.
    var title: String {
      switch self {
      case .openSettings: localized("Open Settings")
      case .choosePhoto: localized("Choose Photo")
      case .openModel: localized("Open Model")
      case .retry: localized("Try Again")
      }
    }
  }

  /// A few words.
  var title: String {
    switch self {
    case .cameraDenied: localized("No Access to the Camera")
    case .cameraUnavailable: localized("No Camera")
    case .cameraInterrupted: localized("Camera Paused")
    case .cameraFailed: localized("Camera Stopped")
    case .noModel: localized("No Model")
    case .badModel(let name, _): localized("%@ Cannot Be Loaded", name)
    case .badPhoto: localized("Picture Cannot Be Read")
    case .failedPrediction: localized("No Answer")
    }
  }

  /// A sentence or two, with the way out.
  var message: String {
    switch self {
    case .cameraDenied:
      localized(
        "Allow the camera for this app in Settings. Pictures can be chosen without it.")
    case .cameraUnavailable:
      localized(
        "This device offers no camera that the app could open. Choose a picture instead.")
    case .cameraInterrupted(.multitasking):
      localized("The camera is not available while several apps share the screen.")
    case .cameraInterrupted(.inUseElsewhere):
      localized("Another app uses the camera; it comes back when that one is done.")
    case .cameraInterrupted(.systemPressure):
      localized("The device is too hot for the camera; it comes back when it has cooled down.")
    case .cameraInterrupted:
      localized("The system has paused the camera; it comes back by itself.")
    case .cameraFailed:
      localized("The camera stopped with an error. Try again, or choose a picture.")
    case .noModel:
      localized(
        "Run “make swift-models” and build again, or open an .mlpackage from Files.")
    case .badModel(_, let reason), .badPhoto(let reason), .failedPrediction(let reason):
      reason
    }
  }

  /// Name of the SF Symbol beside it.
  var symbol: String {
    switch self {
    case .cameraDenied: "lock.slash"
    case .cameraUnavailable, .cameraFailed: "video.slash"
    case .cameraInterrupted: "pause.circle"
    case .noModel: "shippingbox"
    case .badModel, .failedPrediction: "exclamationmark.triangle"
    case .badPhoto: "photo"
    }
  }

  /// What to offer, the most useful first.
  var remedies: [Remedy] {
    switch self {
    case .cameraDenied: [.openSettings, .choosePhoto]
    case .cameraUnavailable, .cameraInterrupted, .badPhoto: [.choosePhoto]
    case .cameraFailed: [.retry, .choosePhoto]
    case .noModel: [.openModel]
    case .badModel: [.retry, .openModel]
    case .failedPrediction: [.retry]
    }
  }
}
