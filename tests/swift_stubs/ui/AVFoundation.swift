// Interface of the part of AVFoundation that the app uses, for type-checking off Apple systems.
// Bodies are unreachable: nothing is ever linked against this module.
@_exported import CoreVideo
@_exported import Foundation

public final class CMSampleBuffer {
  public var imageBuffer: CVPixelBuffer? { fatalError() }
}

public let AVCaptureSessionInterruptionReasonKey = ""
public let AVCaptureSessionErrorKey = ""

public struct AVMediaType: Hashable, Sendable {
  public static let video = AVMediaType()
}

public enum AVAuthorizationStatus: Int, Sendable {
  case notDetermined, restricted, denied, authorized
}

open class AVCaptureDevice: NSObject {
  public struct DeviceType: Hashable, Sendable {
    public static let builtInWideAngleCamera = DeviceType()
  }
  public enum Position: Int, Sendable {
    case unspecified, back, front
  }
  public class func `default`(
    _ deviceType: DeviceType, for mediaType: AVMediaType?, position: Position
  ) -> AVCaptureDevice? { fatalError() }
  public class func authorizationStatus(for mediaType: AVMediaType) -> AVAuthorizationStatus {
    fatalError()
  }
  public class func requestAccess(for mediaType: AVMediaType) async -> Bool { fatalError() }

  @available(iOS 17.0, *)
  public class RotationCoordinator: NSObject {
    public init(device: AVCaptureDevice, previewLayer: CALayer?) {
      fatalError()
    }
    public var videoRotationAngleForHorizonLevelPreview: CGFloat { fatalError() }
  }
}

// Foundation's own on Apple systems, and absent elsewhere; SDKs differ in the handler.
public class NSKeyValueObservation: NSObject {}
public struct NSKeyValueObservedChange<Value> {}
public struct NSKeyValueObservingOptions: OptionSet, Sendable {
  public let rawValue: UInt
  public init(rawValue: UInt) { fatalError() }
  public static let new = NSKeyValueObservingOptions(rawValue: 1)
  public static let initial = NSKeyValueObservingOptions(rawValue: 4)
}
public protocol _KeyValueCodingAndObserving {}
extension NSObject: _KeyValueCodingAndObserving {}
extension _KeyValueCodingAndObserving {
  #if SENDABLE
  public func observe<Value>(
    _ keyPath: KeyPath<Self, Value>, options: NSKeyValueObservingOptions = [],
    changeHandler: @escaping @Sendable (Self, NSKeyValueObservedChange<Value>) -> Void
  ) -> NSKeyValueObservation { fatalError() }
  #else
  public func observe<Value>(
    _ keyPath: KeyPath<Self, Value>, options: NSKeyValueObservingOptions = [],
    changeHandler: @escaping (Self, NSKeyValueObservedChange<Value>) -> Void
  ) -> NSKeyValueObservation { fatalError() }
  #endif
}

public struct AVError: Error {
  public enum Code: Int, Sendable {
    case unknown = -11800
    case mediaServicesWereReset = -11819
  }
  public var code: Code { fatalError() }
}

open class AVCaptureInput: NSObject {}
open class AVCaptureOutput: NSObject {
  public func connection(with mediaType: AVMediaType) -> AVCaptureConnection? { fatalError() }
}
open class AVCaptureDeviceInput: AVCaptureInput {
  public init(device: AVCaptureDevice) throws { fatalError() }
}

open class AVCaptureConnection: NSObject {
  public func isVideoRotationAngleSupported(_ angle: CGFloat) -> Bool { fatalError() }
  public var videoRotationAngle: CGFloat {
    get { fatalError() }
    set { fatalError() }
  }
}

public protocol AVCaptureVideoDataOutputSampleBufferDelegate: AnyObject {
  func captureOutput(
    _ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer,
    from connection: AVCaptureConnection)
}

open class AVCaptureVideoDataOutput: AVCaptureOutput {
  public override init() { fatalError() }
  public var videoSettings: [String: Any]! {
    get { fatalError() }
    set { fatalError() }
  }
  public var alwaysDiscardsLateVideoFrames: Bool {
    get { fatalError() }
    set { fatalError() }
  }
  public func setSampleBufferDelegate(
    _ delegate: (any AVCaptureVideoDataOutputSampleBufferDelegate)?, queue: DispatchQueue?
  ) { fatalError() }
}

open class AVCaptureSession: NSObject {
  public struct Preset: Hashable, Sendable {
    public static let hd1280x720 = Preset()
  }
  public enum InterruptionReason: Int, Sendable {
    case videoDeviceNotAvailableInBackground = 1
    case audioDeviceInUseByAnotherClient = 2
    case videoDeviceInUseByAnotherClient = 3
    case videoDeviceNotAvailableWithMultipleForegroundApps = 4
    case videoDeviceNotAvailableDueToSystemPressure = 5
  }
  public class var wasInterruptedNotification: NSNotification.Name { fatalError() }
  public class var interruptionEndedNotification: NSNotification.Name { fatalError() }
  public class var runtimeErrorNotification: NSNotification.Name { fatalError() }
  public override init() { fatalError() }
  @available(iOS 16.0, *)
  public var isMultitaskingCameraAccessSupported: Bool { fatalError() }
  @available(iOS 16.0, *)
  public var isMultitaskingCameraAccessEnabled: Bool {
    get { fatalError() }
    set { fatalError() }
  }
  public var isRunning: Bool { fatalError() }
  public var inputs: [AVCaptureInput] { fatalError() }
  public var sessionPreset: Preset {
    get { fatalError() }
    set { fatalError() }
  }
  public func canAddInput(_ input: AVCaptureInput) -> Bool { fatalError() }
  public func canAddOutput(_ output: AVCaptureOutput) -> Bool { fatalError() }
  public func addInput(_ input: AVCaptureInput) { fatalError() }
  public func addOutput(_ output: AVCaptureOutput) { fatalError() }
  public func beginConfiguration() { fatalError() }
  public func commitConfiguration() { fatalError() }
  public func startRunning() { fatalError() }
  public func stopRunning() { fatalError() }
}

open class CALayer: NSObject {
  public override init() { fatalError() }
}

public struct AVLayerVideoGravity: Hashable, Sendable {
  public static let resizeAspectFill = AVLayerVideoGravity()
}

open class AVCaptureVideoPreviewLayer: CALayer {
  public var session: AVCaptureSession? {
    get { fatalError() }
    set { fatalError() }
  }
  public var videoGravity: AVLayerVideoGravity {
    get { fatalError() }
    set { fatalError() }
  }
  public var connection: AVCaptureConnection? { fatalError() }
}

// SDKs differ.
#if SENDABLE
extension AVCaptureSession: @unchecked Sendable {}
extension AVCaptureDevice: @unchecked Sendable {}
extension AVCaptureConnection: @unchecked Sendable {}
extension CMSampleBuffer: @unchecked Sendable {}
#elseif NOT_SENDABLE
@available(*, unavailable) extension AVCaptureSession: @unchecked Sendable {}
@available(*, unavailable) extension AVCaptureDevice: @unchecked Sendable {}
@available(*, unavailable) extension AVCaptureConnection: @unchecked Sendable {}
@available(*, unavailable) extension CMSampleBuffer: @unchecked Sendable {}
#endif
